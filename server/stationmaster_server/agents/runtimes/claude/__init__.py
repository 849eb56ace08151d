"""The runtime `claude`: turns on the Claude Agent SDK. `runtime.py` alone may be imported where the SDK is not."""
