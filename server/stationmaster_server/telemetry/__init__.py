"""What the server tells about itself: logs, metrics, traces and the resources it uses."""
