"""A whole installation in a home of its own, driven through the `labeling` command as a user does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

COMMAND = Path(sys.executable).with_name("labeling")


@dataclass
class Installation:
    """One home.

    Attributes:
        home: LABELING_HOME.
        settings: Further settings, without prefix.
    """

    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command: nothing of the caller's settings."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("LABELING_", "DAGSTER_"))}
        own = {f"LABELING_{name}": value for name, value in self.settings.items()}
        return outer | own | {"LABELING_HOME": str(self.home)}

    def labeling(self, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd="/",
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own; what it prints goes to `command.log` in the home."""
        self.home.mkdir(exist_ok=True)
        with (self.home / "command.log").open("ab") as log:
            return subprocess.Popen(
                [COMMAND, *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
            )

    def address(self, name: str) -> str:
        """An address as `labeling status` tells it: POSTGRES_URL, DAGSTER_POSTGRES_URL or MILVUS_URI."""
        status = json.loads(self.labeling("status", "--json", "--show-secrets").stdout)
        return str(status["environment"][f"LABELING_{name}"])

    def query(self, statement: str, database: str = "POSTGRES_URL") -> list[sa.Row[Any]]:
        """Rows of a statement on the source database, or on that of Dagster."""
        engine = sa.create_engine(self.address(database))
        try:
            with engine.begin() as connection:
                result = connection.execute(sa.text(statement))
                return list(result.all()) if result.returns_rows else []
        finally:
            engine.dispose()

    def milvus(self) -> list[dict[str, Any]]:
        """Everything in Milvus."""
        from pymilvus import MilvusClient

        with contextlib.closing(MilvusClient(self.address("MILVUS_URI"))) as client:
            rows: list[dict[str, Any]] = client.query(
                "product_collection_v4",
                filter='id_sanpham != ""',
                output_fields=["id_sanpham", "date", "record_hash", "image_sha256"],
                limit=16_000,
            )
            return rows


@contextlib.contextmanager
def installed(home: Path, **settings: str) -> Iterator[Installation]:
    """An installation whose services are stopped at the end."""
    installation = Installation(home, settings)
    try:
        yield installation
    finally:
        stopped = installation.labeling("down")
        assert stopped.returncode == 0, stopped.stderr
