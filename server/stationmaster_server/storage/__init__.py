"""Storage: what the work of agents leaves behind to be read."""
