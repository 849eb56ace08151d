"""What is old, deleted in short transactions."""
