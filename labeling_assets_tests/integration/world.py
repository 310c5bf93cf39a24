"""A small world on real services: source table, image host, a server that speaks Ollama's API, and Dagster runs."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import sqlalchemy as sa

from labeling_assets.definitions import build_defs
from labeling_assets.defs.products.run_requests import RANGE_END_TAG, RANGE_START_TAG
from labeling_assets.resources import default_resources
from labeling_assets.runs import JOB_NAME
from labeling_assets.services.day_tables import read_table
from labeling_assets.services.quarantine import Quarantine, QuarantinedRow
from labeling_assets.settings import Settings
from labeling_assets_tests.services.faulty_image_host import ImageHost, jpeg, with_etag
from labeling_assets_tests.standins.ollama import OllamaServer

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
DAYS = [dt.date(2026, 3, 14), dt.date(2026, 3, 15)]
TABLE = "ai_craw.product_marketing_summary"


@dataclass
class DayRun:
    """What a run did: metadata and checks by asset."""

    is_success: bool
    failure: str
    metadata: dict[str, dict[str, Any]]
    checks: dict[str, bool]
    days: set[tuple[str, str]]
    day_checks: dict[tuple[str, str], bool]
    run_id: str

    def value(self, asset: str, key: str) -> Any:
        return self.metadata[asset][key]


@dataclass
class World:
    """Everything a test needs to change the source and to see what became of it."""

    engine: sa.Engine
    images: ImageHost
    ollama: OllamaServer
    storage: Path
    collection: str
    milvus_uri: str
    instance: dg.DagsterInstance

    def add(self, product_id: str | None, day: dt.date, image: str | None = None, **values: Any) -> str:
        """Add a row; by default its image is its own. Returns the image's URL."""
        seconds = values.pop("seconds", 12 * 3600)
        moment = dt.datetime.combine(day, dt.time(), ZONE) + dt.timedelta(seconds=seconds)
        url = image if image is not None else self.picture(f"/{uuid.uuid4().hex}.jpg")
        row = {
            "product_id": product_id,
            "image": url,
            "published_at": moment,
            "title": f"Title of {product_id}",
        } | values
        names = ", ".join(row)
        self.sql(f"insert into {TABLE} ({names}) values ({', '.join(f':{name}' for name in row)})", **row)
        return url

    def picture(self, path: str, shade: int | None = None) -> str:
        """Serve a picture of its own at a path; another shade is another picture."""
        seed = uuid.uuid5(uuid.NAMESPACE_URL, f"{path} {shade}").bytes
        return self.images.add(path, with_etag(jpeg((seed[0], seed[1], seed[2]), (64 + seed[3] % 64, 64))))

    def sql(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def run(
        self,
        *days: dt.date,
        instance: dg.DagsterInstance | None = None,
        config: Any = None,
        tags: Mapping[str, str] | None = None,
        assets: Sequence[str] | None = None,
    ) -> DayRun:
        """Run one day, or all from the first to the last in one run; `metadata` is then that of the last one.

        Args:
            *days: Days.
            instance: Of Dagster; by default that of the world.
            config: Run config.
            tags: Of the run.
            assets: Names of those to materialize; None: all.
        """
        job = build_defs(default_resources(Settings.load())).resolve_job_def(JOB_NAME)
        scope: dict[str, Any] = {"partition_key": str(days[0]), "tags": tags}
        if len(days) > 1:
            scope = {"tags": {RANGE_START_TAG: str(days[0]), RANGE_END_TAG: str(days[-1]), **(tags or {})}}
        result = job.execute_in_process(
            **scope,
            instance=instance or self.instance,
            raise_on_error=False,
            run_config=config,
            asset_selection=assets and [dg.AssetKey(name) for name in assets],
        )
        events = [each.step_materialization_data.materialization for each in result.get_asset_materialization_events()]
        failures = [each.step_failure_data for each in result.get_step_failure_events()]
        evaluations = result.get_asset_check_evaluations()
        return DayRun(
            is_success=result.success,
            failure=str(
                failures[0].user_failure_data.description if failures[0].user_failure_data else failures[0].error
            )
            if failures
            else "",
            metadata={
                event.asset_key.path[-1]: {key: value.value for key, value in event.metadata.items()}
                for event in events
            },
            checks={each.check_name: each.passed for each in evaluations},
            days={(event.asset_key.path[-1], event.partition or "") for event in events},
            day_checks={(each.check_name, each.partition or ""): each.passed for each in evaluations},
            run_id=result.run_id,
        )

    def milvus(self) -> dict[str, dict[str, Any]]:
        """Everything in Milvus, by id."""
        from pymilvus import MilvusClient

        with contextlib.closing(MilvusClient(self.milvus_uri)) as client:
            rows = client.query(
                self.collection,
                filter='id_sanpham != ""',
                output_fields=["*"],
                limit=10_000,
                consistency_level="Strong",
            )
        by_id = {row["id_sanpham"]: row for row in rows}
        assert len(by_id) == len(rows)
        return by_id

    def data_label(self) -> dict[str, dt.date]:
        with self.engine.connect() as connection:
            rows = connection.execute(sa.text("select id_sanpham, date_created from ai_craw.data_label"))
            return {row[0]: row[1] for row in rows}

    def parquet(self, asset: str, day: dt.date) -> list[dict[str, Any]]:
        from upath import UPath

        rows: list[dict[str, Any]] = read_table(UPath(self.storage / asset / f"{day}.parquet")).to_pylist()
        return rows

    def quarantine(self) -> dict[str, QuarantinedRow]:
        return {row.product_id: row for row in Quarantine(self.engine).find()}

    def model_calls(self) -> int:
        return self.ollama.model.stats.calls

    def agrees(self, expected: dict[str, dt.date]) -> None:
        """Milvus, data_label and Parquet hold exactly these products, each on its day."""
        assert {id_: dt.date.fromisoformat(row["date"]) for id_, row in self.milvus().items()} == expected
        assert self.data_label() == expected
        for day in set(expected.values()):
            on_day = {row["id_sanpham"] for row in self.parquet("clip_vectors", day)}
            assert {id_ for id_, own_day in expected.items() if own_day == day} <= on_day
