"""Reports of executions: one model and four formats, pure functions from a `Report` to bytes."""
