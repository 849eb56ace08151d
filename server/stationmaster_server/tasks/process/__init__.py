"""Documents: split into pieces, embedded, searchable."""
