"""Templates and their variables: Jinja2 in a sandbox, bounded in time and memory, strict about what is missing."""
