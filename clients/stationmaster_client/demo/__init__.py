"""`make demo`: a server, a conversation, a crash in the middle of it, and nothing lost."""
