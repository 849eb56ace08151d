"""Organizations, users, API keys, tokens, roles and quotas: who may call, and how much."""
