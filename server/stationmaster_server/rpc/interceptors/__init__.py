"""What every call passes on its way to a servicer, one file each; `rpc/server.py` puts them in order."""
