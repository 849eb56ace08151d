"""The transport: server assembly, interceptors, errors as statuses, health and reflection."""
