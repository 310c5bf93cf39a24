"""The products domain in Dagster: from a Postgres row to a searchable Milvus collection, a day at a time."""
