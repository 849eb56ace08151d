"""The README and the guides, executed."""
