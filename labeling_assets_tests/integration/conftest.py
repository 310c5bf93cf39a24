"""The world of the integration tests: one a test, on services that the session shares."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.services.connect import close_services
from labeling_assets_tests.integration.world import TABLE, World
from labeling_assets_tests.services.faulty_image_host import ImageHost, image_host
from labeling_assets_tests.standins.ollama import OllamaServer


@pytest.fixture
def images() -> Iterator[ImageHost]:
    with image_host() as host:
        yield host


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    with OllamaServer(slots=4) as server:
        yield server


@pytest.fixture
def world(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    engine: sa.Engine,
    postgres_url: str,
    milvus_uri: str,
    images: ImageHost,
    ollama: OllamaServer,
) -> Iterator[World]:
    collection = f"c_{uuid.uuid4().hex}"
    settings = {
        "POSTGRES_URL": postgres_url,
        "MILVUS_URI": milvus_uri,
        "MILVUS_COLLECTION": collection,
        "STORAGE": str(tmp_path),
        "VISION_BACKEND": "ollama",
        "OLLAMA_HOSTS": ollama.url,
        "VISION_SLOTS": "4",
        "ALLOW_PRIVATE_IMAGE_HOSTS": f"127.0.0.1:{images.port}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"LABELING_{name}", value)
    columns = ", ".join(f"{name} {kind}" for name, kind in SOURCE_COLUMNS.items())
    with engine.begin() as connection:
        connection.execute(sa.text("create schema ai_craw"))
        connection.execute(sa.text(f"create table {TABLE} ({columns})"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(engine, images, ollama, tmp_path, collection, milvus_uri, instance)
    close_services()
    from pymilvus import MilvusClient

    with contextlib.closing(MilvusClient(milvus_uri)) as client:
        client.drop_collection(collection)
