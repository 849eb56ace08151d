"""Turns on the real command line of the Claude Agent SDK, with a server that speaks the Messages stream."""
