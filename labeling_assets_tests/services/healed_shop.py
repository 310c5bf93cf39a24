"""A shop of two days on a real PostgreSQL and a real Milvus Lite, and the damage that can be done to it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from upath import UPath

from labeling_assets.products.assembly import data_label_rows
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.records import EmbeddedProduct, LabeledProduct, to_table
from labeling_assets.products.vectors import DESCRIPTION_VECTOR, IMAGE_VECTOR, milvus_records, with_vectors
from labeling_assets.services.checked_files import LABELS, VECTORS
from labeling_assets.services.day_state import STORES, SyncedDays
from labeling_assets.services.day_tables import mark_source, newest_rows_elsewhere, write_table
from labeling_assets.services.healing import StoreHealer
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.postgres import ProductDatabase
from labeling_assets.services.source_days import SourceDays
from labeling_assets_tests.services.milvus_samples import DIMENSION, product, record, vector

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
TABLE = "ai_craw.product_marketing_summary"
MONDAY, TUESDAY = dt.date(2026, 3, 2), dt.date(2026, 3, 3)
SUNDAY, WEDNESDAY = MONDAY - dt.timedelta(days=1), TUESDAY + dt.timedelta(days=1)
PARTITIONS = (dt.date(2026, 1, 1), WEDNESDAY)


@dataclass
class Shop:
    """Source, files, Milvus and data_label, and a pipeline without models."""

    engine: sa.Engine
    store: MilvusStore
    root: UPath

    def open(self) -> None:
        """Make the source table, fill two days and run them; product `both` is on both."""
        columns = ", ".join(f"{name} {kind}" for name, kind in SOURCE_COLUMNS.items())
        self.sql("create schema ai_craw")
        self.sql(f"create table {TABLE} ({columns})")
        for day, ids in ((MONDAY, ["a", "b", "both"]), (TUESDAY, ["c", "d", "both", 'with "quotes"\\'])):
            for id_ in ids:
                self.add(id_, day)
            self.run(day)

    @property
    def database(self) -> ProductDatabase:
        return ProductDatabase(self.engine, TABLE, ZONE)

    @property
    def source_days(self) -> SourceDays:
        return SourceDays(self.engine, TABLE, ZONE)

    def healer(self, partitions: tuple[dt.date, dt.date] = PARTITIONS, store: MilvusStore | None = None) -> StoreHealer:
        return StoreHealer(self.database, self.source_days, store or self.store, self.root, partitions)

    def sql(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def add(self, id_: str, day: dt.date) -> None:
        noon = dt.datetime.combine(day, dt.time(12), ZONE)
        statement = f"insert into {TABLE} (product_id, published_at, title, image) values (:id, :at, 'title', 'url')"
        self.sql(statement, id=id_, at=noon)

    def source(self, day: dt.date) -> dict[str, str]:
        query = f"select product_id, title from {TABLE} where (published_at at time zone :zone)::date = :day"
        with self.engine.connect() as connection:
            rows = connection.execute(sa.text(query), {"zone": ZONE.key, "day": day})
            return {row.product_id: row.title for row in rows}

    def path(self, asset: str, day: dt.date) -> UPath:
        return self.root / asset / f"{day}.parquet"

    def tables(self, day: dt.date, *, partial: bool = False) -> dict[str, pa.Table]:
        """The day's files as a run would write them."""
        fingerprint = self.source_days.fingerprints(day, day)[day]
        identity = self.store.identity
        products = [
            product(id_, day, title=title, description=f"{title} of {id_}", embedder=identity.key)
            for id_, title in self.source(day).items()
        ]
        vectors = np.zeros((len(products), identity.dimension), np.float32)
        for position, row in enumerate(products):
            vectors[position, :DIMENSION] = vector(row.description)
        tables = {
            VECTORS: with_vectors(to_table(products, EmbeddedProduct), vectors, vectors),
            LABELS: to_table(products, LabeledProduct),
        }
        return {asset: mark_source(table, fingerprint, partial=partial) for asset, table in tables.items()}

    def run(self, day: dt.date, *, partial: bool = False) -> None:
        """Write the day's files and bring them into the stores, as the stages do."""
        tables = self.tables(day, partial=partial)
        for asset, table in tables.items():
            write_table(self.path(asset, day), table)

        def find_elsewhere(ids: Any) -> Any:
            table = newest_rows_elsewhere(self.root, VECTORS, day, ids)
            return [row for batch in milvus_records(table) for row in batch] if table is not None else []

        self.store.sync_day(day, milvus_records(tables[VECTORS]), find_elsewhere=find_elsewhere)
        rows = data_label_rows(tables[LABELS])
        leaving = self.database.data_label_ids_leaving(day, [row["id_sanpham"] for row in rows])
        elsewhere = newest_rows_elsewhere(self.root, LABELS, day, leaving)
        restored = data_label_rows(elsewhere) if elsewhere is not None else []
        self.database.sync_data_label(day, rows, restored, leaving)
        fingerprint = None if partial else self.source_days.fingerprints(day, day)[day]
        for store in STORES:
            SyncedDays(self.engine).record(day, store, fingerprint)

    def stores(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything in Milvus (date and hash) and in data_label, by product."""
        milvus = {
            row["id_sanpham"]: (row["date"], row["record_hash"]) for row in self.store._rows._paged('date != "x"')
        }
        with self.engine.connect() as connection:
            query = "select id_sanpham, description, date_created, platform, name_store from ai_craw.data_label"
            return milvus, {row.id_sanpham: tuple(row) for row in connection.execute(sa.text(query))}

    def put_in_milvus(self, id_: str, day: dt.date | str) -> None:
        """Write a row of another content than the file's, as a stranger would."""
        row = record(id_, MONDAY, description="altered", embedder=self.store.identity.key)
        padding = np.zeros(self.store.identity.dimension - DIMENSION, np.float32)
        vectors = {name: np.concatenate([row[name], padding]) for name in (IMAGE_VECTOR, DESCRIPTION_VECTOR)}
        self.store._rows.upsert([row | vectors | {"date": str(day)}])

    def put_in_data_label(self, id_: str, day: dt.date) -> None:
        row = {
            "id_sanpham": id_,
            "date_created": day,
            "description": "altered",
            "platform": "Website",
            "name_store": "x",
        }
        self.sql("delete from ai_craw.data_label where id_sanpham = :id", id=id_)
        names = ", ".join(f":{name}" for name in row)
        self.sql(f"insert into ai_craw.data_label ({', '.join(row)}) values ({names})", **row)
