"""What the store does when Milvus is down, goes away, comes back, or refuses."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from milvus_samples import IDENTITY, MONDAY, never_superseded, record, store_of

from labeling_assets.embedded.milvus import MilvusServer
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.services.milvus import MilvusStore

CONNECTION = "labeling_assets.services.milvus.connection"


@pytest.fixture
def server(home: Path) -> Iterator[MilvusServer]:
    """A Milvus Lite server of the test's own, which it may kill."""
    with MilvusServer(home / "milvus") as server:
        yield server


def kill(server: MilvusServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    while server.pid is not None:
        time.sleep(0.01)


def test_a_server_that_is_down_is_reported_with_address_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CONNECTION}.CONNECT_SECONDS", 0.5)
    store = store_of("http://user:geheim@127.0.0.1:1")
    with pytest.raises(ServiceUnavailableError, match=r"http://127\.0\.0\.1:1 does not answer") as caught:
        store.ensure()
    assert "geheim" not in str(caught.value)
    assert "LABELING_MILVUS_URI" in caught.value.remedy


@pytest.mark.parametrize("uri", ["", "nonsense", "localhost:19530", "http://", "milvus.db", "ftp://host:1"])
def test_an_address_that_cannot_be_read_is_refused_at_once(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="LABELING_MILVUS_URI looks like"):
        store_of(uri).ensure()


def test_a_sync_outlives_a_killed_and_restarted_server(server: MilvusServer) -> None:
    def batches() -> Iterator[list[dict[str, Any]]]:
        yield [record(f"P{number}") for number in range(500)]
        kill(server)
        server.start()
        yield [record(f"P{number}") for number in range(500, 700)]

    store = store_of(server.uri)
    result = store.sync_day(MONDAY, batches(), find_elsewhere=lambda _: [])
    assert (result.new, result.insert_batches) == (700, 2)
    assert store.state().rows == 700
    store.close()


def test_a_server_that_stays_away_fails_the_sync_and_the_next_one_completes_it(
    server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{CONNECTION}.OUTAGE_SECONDS", 0.5)
    records = [record(f"P{number}") for number in range(600)]

    def batches() -> Iterator[list[dict[str, Any]]]:
        yield records[:500]
        kill(server)
        yield records[500:]

    store = store_of(server.uri)
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        store.sync_day(MONDAY, batches(), find_elsewhere=lambda _: [])
    server.start()
    result = store.sync_day(MONDAY, [records], find_elsewhere=lambda _: [])
    assert (result.unchanged, result.new, store.state().rows) == (500, 100, 600)
    store.close()


def test_a_failed_read_is_never_an_empty_answer(server: MilvusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CONNECTION}.OUTAGE_SECONDS", 0.2)
    store = store_of(server.uri)
    store.sync_day(MONDAY, [[record("P1")]], find_elsewhere=lambda _: [])
    kill(server)
    for read in (lambda: store.existing(["P1"]), lambda: store.get("P1"), store.state):
        with pytest.raises(ServiceUnavailableError):
            read()
    store.close()


def test_a_proxy_of_the_environment_is_not_used_for_loopback(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(f"{CONNECTION}.CONNECT_SECONDS", 2.0)
    store = store_of(milvus_uri)
    with pytest.raises(ConfigurationError, match="no collection"):
        store.state()
    store.close()


@pytest.fixture
def refusing_uri() -> Iterator[str]:
    """A server that speaks Milvus's protocol and refuses every token."""
    from pymilvus.grpc_gen import milvus_pb2_grpc

    class Refusing(milvus_pb2_grpc.MilvusServiceServicer):
        def Connect(self, _: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - name of the protocol
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")

    server = grpc.server(ThreadPoolExecutor(1))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Refusing(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_refused_token_is_a_wrong_setting_and_is_not_repeated_in_the_message(refusing_uri: str) -> None:
    store = MilvusStore(
        refusing_uri, "root:geheim", "products", "auto", IDENTITY, lambda: never_superseded(threading.Lock())
    )
    with pytest.raises(ConfigurationError, match="refuses the token") as caught:
        store.ensure()
    assert "geheim" not in str(caught.value)


def test_rows_written_while_many_clients_meet_a_restarted_server_are_kept(server: MilvusServer) -> None:
    store_of(server.uri, "restarted").sync_day(MONDAY, [[record("P0")]], find_elsewhere=lambda _: [])
    for round_number in range(3):
        kill(server)
        server.start()
        ids = [f"R{round_number}-{number}" for number in range(200)]
        stores = [store_of(server.uri, "restarted") for _ in range(6)]
        with ThreadPoolExecutor(len(stores)) as pool:
            readers = [pool.submit(store.existing, ids) for store in stores[1:]]
            rows = [record(id_) for id_ in ids]
            pool.submit(stores[0].sync_day, MONDAY, [rows], find_elsewhere=lambda _: [], is_partial=True).result()
            for reader in readers:
                reader.result()
        assert set(stores[0].existing(ids)) == set(ids)
        for store in stores:
            store.close()


@pytest.mark.parametrize("index", ["FLAT", "HNSW", "IVF_FLAT"])
def test_an_index_file_that_a_crash_cut_off_is_made_anew(server: MilvusServer, index: str) -> None:
    store = store_of(server.uri, "cut_off", index=index)
    rows = [record(f"P{number}") for number in range(50)]
    store.sync_day(MONDAY, [rows], find_elsewhere=lambda _: [])
    store.close()
    server.stop()
    files = list(server.folder.rglob("*.idx"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:40])
    server.start()
    store.ensure()
    assert store.search(rows[0]["image_vector"], "image_vector", 1)[0].id_sanpham == "P0"
    store.close()
