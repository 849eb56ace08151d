"""The durable work engine: one table, one claim, one lease, one way to retry, cancel, time out and report progress."""
