"""Background services: what goes on without anybody asking for it, and how the installation is."""
