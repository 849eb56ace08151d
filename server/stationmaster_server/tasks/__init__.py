"""Tasks: work that is described once and executed by the work engine."""
