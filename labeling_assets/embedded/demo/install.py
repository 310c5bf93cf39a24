"""Puts the demo catalogue in place: images in the home, rows in the source table, services up."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from labeling_assets.embedded import stack
from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.catalogue_folder import write_catalogue
from labeling_assets.embedded.demo.contents import LINK_PREFIX
from labeling_assets.embedded.demo.source_table import load_catalogue_rows
from labeling_assets.errors import ConfigurationError
from labeling_assets.services.postgres import create_engine, database_errors
from labeling_assets.settings import Settings


def install_demo(
    settings: Settings, *, seed: int, days: int, products_per_day: int, last_day: dt.date, has_traps: bool = True
) -> Settings:
    """Draw the catalogue, start the services and fill the source table.

    Returns:
        The settings with all addresses filled in.

    Raises:
        ConfigurationError: The source table or the collection holds what is not of the demo.
        ServiceUnavailableError: A service does not start.
    """
    catalogue = build_catalogue(
        seed, days, products_per_day, last_day=last_day, timezone=settings.timezone, has_traps=has_traps
    )
    write_catalogue(catalogue, settings.home / "demo")
    settings = stack.start(settings)
    if settings.postgres_url is None:
        raise ConfigurationError("LABELING_POSTGRES_URL is not known.", "Run `labeling up`.")
    engine = create_engine(settings.postgres_url.get_secret_value())
    try:
        with database_errors(f"{settings.source_table} cannot be filled"):
            _refuse_foreign_rows(engine, settings.source_table)
            _refuse_foreign_products(settings)
            load_catalogue_rows(engine, catalogue, stack.image_host_url(settings), settings.source_table)
    finally:
        engine.dispose()
    return settings


def _refuse_foreign_products(settings: Settings) -> None:
    """The demo owns its days in Milvus, and would remove what others have indexed for them."""
    from pymilvus import MilvusClient

    token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
    client = MilvusClient(str(settings.milvus_uri), token=token)
    try:
        if not client.has_collection(settings.milvus_collection):
            return
        client.load_collection(settings.milvus_collection)
        foreign = client.query(
            settings.milvus_collection,
            filter=f'not (link_redirect like "{LINK_PREFIX}%")',
            output_fields=["id_sanpham"],
            limit=1,
        )
    finally:
        client.close()
    if foreign:
        raise ConfigurationError(
            f"Collection {settings.milvus_collection} holds products that are not of the demo.",
            "Unset LABELING_MILVUS_URI, or name another LABELING_MILVUS_COLLECTION.",
        )


def _refuse_foreign_rows(engine: sa.Engine, source_table: str) -> None:
    """The demo never mixes its rows with real ones: a merchandiser would find both."""
    schema, name = source_table.split(".")
    if not sa.inspect(engine).has_table(name, schema=schema):
        return
    table = sa.table(name, sa.column("link"), schema=schema)
    is_foreign = table.c.link.is_(None) | ~table.c.link.startswith(LINK_PREFIX, autoescape=True)
    with engine.connect() as connection:
        if connection.execute(sa.select(sa.exists().where(is_foreign).select_from(table))).scalar():
            raise ConfigurationError(
                f"{source_table} holds rows that are not of the demo.",
                "Unset LABELING_POSTGRES_URL, or run the demo in another LABELING_HOME.",
            )
