"""The tools that every server has, and what a tool is."""
