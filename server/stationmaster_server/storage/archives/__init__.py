"""Archives of workspaces: packed, kept, restored, and deleted in time."""
