"""The durable event log: streams of events, one group-commit writer, the fan-out hub and the bus between servers."""
