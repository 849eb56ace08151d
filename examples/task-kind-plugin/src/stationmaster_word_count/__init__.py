"""A kind of task that counts words."""
