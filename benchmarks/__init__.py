"""What `make bench` runs: every measure beside a floor that no program on this stack can beat, or beside a peer."""
