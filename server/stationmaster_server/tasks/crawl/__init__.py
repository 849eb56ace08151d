"""The crawler: fetches the pages of a site politely, and remembers in PostgreSQL how far it came."""
