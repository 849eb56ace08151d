"""The built-in model `demo`: no network, no key, and the same answer to the same history."""
