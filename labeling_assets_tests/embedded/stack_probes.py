"""What tests of the laptop stack look at: its processes, its databases, its vectors."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import sqlalchemy as sa

from labeling_assets.embedded import stack
from labeling_assets.settings import Settings


def wait_for(condition: Callable[[], object]) -> None:
    """Return once the condition holds; the test's own time-out ends a wait that is in vain."""
    while not condition():
        time.sleep(0.02)


def processes_of(home: Path) -> dict[int, str]:
    """Command line of every living process that has to do with the home, by command line or working folder."""
    found = {}
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        command_line = " ".join(process.info["cmdline"] or [])
        is_ours = str(home) in command_line or str(home) in (process.info["cwd"] or "")
        if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found[process.pid] = command_line
    return found


def new_home() -> Path:
    """A fresh home that every user may enter, with a space and letters beyond ASCII in its path."""
    home = Path(tempfile.mkdtemp(prefix="labeling stack é "))
    home.chmod(0o755)
    return home


def execute(settings: Settings, text: str) -> list[tuple[object, ...]]:
    """Run SQL in our database of a started stack."""
    assert settings.postgres_url is not None
    engine = sa.create_engine(settings.postgres_url.get_secret_value(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(text))
        return [tuple(row) for row in result] if result.returns_rows else []


def insert_vectors(settings: Settings, ids: range) -> None:
    """Upsert rows into a Milvus collection without a flush."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(settings.milvus_uri)
    if not client.has_collection("kept"):
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
        indexes = client.prepare_index_params()
        indexes.add_index("vector", index_type="FLAT", metric_type="COSINE")
        client.create_collection("kept", schema=schema, index_params=indexes)
    client.upsert("kept", [{"id": each, "vector": [1.0, 0.0, 0.0, float(each)]} for each in ids])
    client.close()


def vector_ids(settings: Settings) -> list[int]:
    from pymilvus import MilvusClient

    client = MilvusClient(settings.milvus_uri)
    client.load_collection("kept")
    rows = client.query("kept", filter="id >= 0", output_fields=["id"])
    client.close()
    return sorted(row["id"] for row in rows)


def supervisor_pid(settings: Settings) -> int:
    pid = stack.status(settings).supervisor_pid
    assert pid is not None
    return pid


def service_pid(settings: Settings, key: str) -> int:
    pid = next(service.pid for service in stack.status(settings).services if service.key == key)
    assert pid is not None
    return pid


def urls(settings: Settings) -> list[str]:
    """Addresses of PostgreSQL and Milvus."""
    assert settings.postgres_url is not None
    assert settings.milvus_uri is not None
    return [settings.postgres_url.get_secret_value(), settings.milvus_uri]
