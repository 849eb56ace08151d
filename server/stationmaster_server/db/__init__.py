"""The only way to PostgreSQL: two kinds of transactions, error translation, the schema, migrations, an embedded server."""
