"""Alembic migrations of schema `labeling`. Applied by `labeling_assets.services.postgres.migrate`."""
