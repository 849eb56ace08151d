"""What the load process does: closed-loop callers, conversations, watchers."""
