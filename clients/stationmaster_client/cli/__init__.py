"""The command line `stationmaster`. Modules here import gRPC only inside functions: `--help` must not wait for it."""
