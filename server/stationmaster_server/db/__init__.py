"""The only way to PostgreSQL: transactions, error translation, the schema, migrations, an embedded server."""
