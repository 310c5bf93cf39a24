"""Backup and restore on a real PostgreSQL and a real Milvus Lite: equal to the byte, or refused."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st
from milvus_samples import DIMENSION, IDENTITY, NASTY_IDS, record, store_of, sync
from upath import UPath

from labeling_assets import migrations
from labeling_assets.cli.backup import _dagster_tables
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets.errors import ConfigurationError, EmbedderMismatchError
from labeling_assets.services.backup import (
    Manifest,
    Platform,
    back_up,
    dagster_database,
    product_database,
    read_manifest,
    restore,
    verify_files,
)
from labeling_assets.services.backup.files import dump_files, load_files, stored_files
from labeling_assets.services.backup.folder import MANIFEST, UNFINISHED, CollectionEntry, new_backup
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.postgres import create_engine, migrate
from labeling_assets.services.tables import data_label, label_ledger, quarantine, vector_cache
from labeling_assets_tests.services import backup_contents

NASTY_TEXTS = [*NASTY_IDS, "", "\\N", "\\.", "NULL", "a\tb\\tc\nd\r\ne", "\\\\", "\v\f\b\x7f", "é — 😀", "x" * 100_000]
DAY = dt.date(2026, 3, 2)
NO_COLLECTION = CollectionEntry(
    name="c", embedder="e", dimension=8, schema_version="1", indexes={}, server="s", rows=0, path="milvus/none"
)


class Interrupted(BaseException):
    """Stands for the end of the process."""


def silent(text: str, *, is_done: bool = False) -> None:
    """Report to nobody."""


def idle() -> None:
    """Nothing runs."""


def interrupted_at(wanted: str) -> Callable[..., None]:
    """A report that ends the work when a line begins so."""

    def report(text: str, *, is_done: bool = False) -> None:
        if text.startswith(wanted):
            raise Interrupted(text)

    return report


@dataclass
class Place:
    """A platform of its own."""

    platform: Platform
    root: UPath
    milvus_uri: str

    @property
    def products(self) -> sa.Engine:
        return self.platform.products.engine

    @property
    def dagster(self) -> sa.Engine:
        return self.platform.dagster.engine

    def insert(self, table: sa.Table, **values: Any) -> None:
        with self.products.begin() as connection:
            connection.execute(sa.insert(table).values(**values))

    def sql(self, statement: str) -> None:
        with self.dagster.begin() as connection:
            connection.execute(sa.text(statement))

    def contents(self) -> dict[str, Any]:
        self.platform.vector_store.ensure()
        return {
            "labeling": backup_contents.tables(self.products),
            "dagster": backup_contents.tables(self.dagster),
            "milvus": backup_contents.products(self.milvus_uri, self.platform.collection),
            "storage": {name: (self.root / name).read_bytes() for name in stored_files(str(self.root))},
        }


MakePlace = Callable[[], Place]


@pytest.fixture(scope="module")
def templates(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Databases as they are before anything has run: ours and Dagster's."""
    names = (f"ours_{uuid.uuid4().hex}", f"dagster_{uuid.uuid4().hex}")
    admin = sa.create_engine(postgres_server.url("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for name in names:
            connection.execute(sa.text(f"create database {name}"))
    admin.dispose()
    engine = create_engine(postgres_server.url(names[0]))
    migrate(engine)
    engine.dispose()
    with dagster_instance(postgres_server.url(names[1]), tmp_path_factory.mktemp("dagster")) as instance:
        instance.event_log_storage.set_concurrency_slots("milvus", 1)
    return names


@contextlib.contextmanager
def dagster_instance(url: str, folder: Path) -> Iterator[dg.DagsterInstance]:
    (folder / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: {json.dumps(url)}}}}}")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield instance


@pytest.fixture(scope="module")
def make_place(
    postgres_server: PostgresServer,
    templates: tuple[str, str],
    milvus_uri: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MakePlace]:
    """Makes platforms; their databases go with the server."""
    from pymilvus import MilvusClient

    admin = sa.create_engine(postgres_server.url("postgres"), isolation_level="AUTOCOMMIT")
    made: list[Place] = []

    def engine(template: str) -> sa.Engine:
        name = f"copy_{uuid.uuid4().hex}"
        with admin.connect() as connection:
            connection.execute(sa.text(f"create database {name} template {template}"))
        return create_engine(postgres_server.url(name))

    def make() -> Place:
        name, folder = f"c_{uuid.uuid4().hex}", tmp_path_factory.mktemp("place")
        dagster = engine(templates[1])

        def upgrade() -> None:
            with dagster_instance(dagster.url.render_as_string(hide_password=False), folder) as instance:
                instance.upgrade()

        platform = Platform(
            products=product_database(engine(templates[0])),
            dagster=dagster_database(dagster, _dagster_tables(), upgrade),
            vector_store=store_of(milvus_uri, name),
            collection=name,
            storage_root=str(folder / "storage"),
        )
        made.append(Place(platform, UPath(folder / "storage"), milvus_uri))
        return made[-1]

    yield make
    admin.dispose()
    client = MilvusClient(milvus_uri)
    for place in made:
        place.products.dispose()
        place.dagster.dispose()
        place.platform.vector_store.close()
        if client.has_collection(place.platform.collection):
            client.drop_alias(f"{place.platform.collection}_live")
            client.drop_collection(place.platform.collection)
    client.close()


@pytest.fixture(scope="module")
def empty(make_place: MakePlace) -> Place:
    """A platform on which nothing has run, for tests that must leave it so."""
    return make_place()


@pytest.fixture(scope="module")
def before(full: Place) -> dict[str, Any]:
    """What the full platform holds."""
    return full.contents()


@pytest.fixture(scope="module")
def backup_folder(full: Place, before: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the full platform."""
    folder = tmp_path_factory.mktemp("backups") / "full"
    backed_up(full, folder)
    assert full.contents() == before
    return folder


@pytest.fixture(scope="module")
def manifest(backup_folder: Path) -> Manifest:
    manifest = read_manifest(backup_folder)
    verify_files(backup_folder, manifest, silent)
    return manifest


@pytest.fixture(scope="module")
def full(make_place: MakePlace) -> Place:
    """A platform that holds something of everything, and nothing of it is easy; tests leave it as it is."""
    place = make_place()
    make_data_label(place)
    for number, text in enumerate(NASTY_TEXTS):
        clean = text.replace("\0", "")
        place.insert(
            label_ledger,
            image_sha256=str(number),
            model_digest=clean,
            prompt_version="1",
            schema_version="1",
            model=clean,
            labels={"text": clean} if number % 2 else None,
            model_calls=1,
            prompt_tokens=number,
            output_tokens=2**31 - 1,
            seconds=number / 3,
        )
        values = {"description": clean, "date_created": DAY, "platform": "", "name_store": clean}
        place.insert(data_label, id_sanpham=f"P{number}", **values)
    for number, vector in enumerate([b"", bytes(range(256)), b"\\x00'\n"]):
        place.insert(vector_cache, embedder=IDENTITY.key, content_key=str(number), vector=vector)
    moment = dt.datetime(2026, 3, 2, 23, 59, 59, 999_999, dt.timezone(dt.timedelta(hours=7)))
    reason = {"error_class": "ImageError", "message": "x", "can_retry": True, "attempts": 1}
    place.insert(quarantine, product_id="P", day=DAY, stage="s", **reason, first_seen=moment, last_seen=moment)
    place.sql("insert into snapshots (snapshot_id, snapshot_body, snapshot_type) values ('s', '\\x00ff', 'JOB')")
    place.sql("insert into runs (run_id, snapshot_id, status, start_time) values ('r', 's', 'SUCCESS', 1e9 / 3)")
    place.sql("insert into run_tags (run_id, key, value) values ('r', 'k', 'v')")
    place.sql("insert into event_logs (run_id, event, timestamp) select 'r', '{}', now() from generate_series(1, 50)")
    place.sql("select nextval('event_logs_id_seq')")
    empty = record("P1", spend=None, title=None, occasion=[], has_image_vector=False)
    sync(place.platform.vector_store, [empty, *(record(id_) for id_ in NASTY_IDS)])
    for name in ("images/ab/abc", "clip_vectors/2026-03-02.parquet", "tên file lạ.bin"):
        (place.root / name).parent.mkdir(parents=True, exist_ok=True)
        (place.root / name).write_bytes(name.encode() * 1000)
    (place.root / "clip_vectors" / ".half.tmp").write_bytes(b"draft")
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "one"


def backed_up(place: Place, folder: Path) -> Manifest:
    return back_up(place.platform, folder, idle, silent)


def test_a_restored_platform_equals_the_first_to_the_byte(
    before: dict[str, Any], backup_folder: Path, manifest: Manifest, make_place: MakePlace
) -> None:
    other = make_place()
    assert restore(other.platform, backup_folder, manifest, silent)
    assert other.contents() == before
    assert len(before["milvus"]) == len(NASTY_IDS) + 1
    assert not (other.root / "clip_vectors" / ".half.tmp").exists()
    assert other.platform.vector_store.state().embedder == IDENTITY.key
    assert not restore(other.platform, backup_folder, manifest, silent)
    other.sql("insert into event_logs (run_id, event, timestamp) values ('r', '{}', now())")  # its id is a new one


def test_every_table_of_both_databases_is_part_of_the_backup(full: Place, manifest: Manifest) -> None:
    for name, engine in (("labeling", full.products), ("dagster", full.dagster)):
        schemas = ("labeling", "ai_craw") if name == "labeling" else ("public",)
        there = {table for schema in schemas for table in sa.inspect(engine).get_table_names(schema)}
        assert {table.name for table in manifest.databases[name].tables} == there


def test_an_empty_platform_can_be_backed_up_and_restored(empty: Place, make_place: MakePlace, folder: Path) -> None:
    other = make_place()
    assert restore(other.platform, folder, backed_up(empty, folder), silent)
    assert other.contents() == empty.contents()


def test_an_object_store_is_backed_up_and_restored(before: dict[str, Any], tmp_path: Path) -> None:
    bucket, target = (f"memory://{uuid.uuid4().hex}/labeling" for _ in range(2))
    for name, content in before["storage"].items():
        (UPath(bucket) / name).write_bytes(content)
    with new_backup(tmp_path / "backup") as backup:
        dump_files(bucket, backup, silent)
        manifest = backup.finish({}, NO_COLLECTION)
    load_files(manifest, tmp_path / "backup", target, silent)
    assert {name: (UPath(target) / name).read_bytes() for name in stored_files(target)} == before["storage"]


def test_an_interrupted_backup_is_no_backup_until_it_is_run_again(full: Place, folder: Path) -> None:
    for line in ("PostgreSQL, labeling", "PostgreSQL, dagster", "Milvus", "Storage: 1 of", "Storage: 3 files"):
        with pytest.raises(Interrupted, match=line):
            back_up(full.platform, folder, idle, interrupted_at(line))
        with pytest.raises(ConfigurationError, match="not whole"):
            read_manifest(folder)
    (folder / "storage" / "left").write_bytes(b"x")
    verify_files(folder, backed_up(full, folder), silent)
    assert not (folder / "storage" / "left").exists()


def test_a_backup_during_which_something_ran_is_not_finished(full: Place, folder: Path) -> None:
    answers = iter([None, ConfigurationError("a run began")])

    def ensure_idle() -> None:
        if error := next(answers):
            raise error

    with pytest.raises(ConfigurationError, match="a run began"):
        back_up(full.platform, folder, ensure_idle, silent)
    with pytest.raises(ConfigurationError, match="not whole"):
        read_manifest(folder)


def test_a_folder_with_a_backup_or_other_files_is_left_alone(full: Place, backup_folder: Path, tmp_path: Path) -> None:
    held = backup_contents.files(backup_folder)
    with pytest.raises(ConfigurationError, match="holds a backup already"):
        backed_up(full, backup_folder)
    assert backup_contents.files(backup_folder) == held
    (tmp_path / "dear.txt").write_text("x")
    with pytest.raises(ConfigurationError, match="not empty"):
        backed_up(full, tmp_path)
    assert backup_contents.files(tmp_path).keys() == {"dear.txt"}


def test_two_backups_never_write_one_folder(folder: Path) -> None:
    with new_backup(folder), pytest.raises(ConfigurationError, match="Another backup"), new_backup(folder):
        pass


def test_an_interrupted_restore_goes_on_when_it_is_run_again(
    before: dict[str, Any], backup_folder: Path, manifest: Manifest, make_place: MakePlace
) -> None:
    other = make_place()
    for line in ("Storage: 1 of", "Storage: 3 files", "Milvus", "PostgreSQL, labeling", "PostgreSQL, dagster"):
        with pytest.raises(Interrupted, match=line):
            restore(other.platform, backup_folder, manifest, interrupted_at(line))
        assert backup_contents.tables(other.dagster)["public.runs"] == b""
    assert restore(other.platform, backup_folder, manifest, silent)
    assert other.contents() == before


def test_a_restore_is_not_run_over_what_was_written_after_it_was_interrupted(
    backup_folder: Path, manifest: Manifest, make_place: MakePlace
) -> None:
    other = make_place()
    with pytest.raises(Interrupted):
        restore(other.platform, backup_folder, manifest, interrupted_at("Milvus"))
    ledger_row(other)
    held = other.contents()
    with pytest.raises(ConfigurationError, match=r"labeling\.vector_cache"):
        restore(other.platform, backup_folder, manifest, silent)
    assert other.contents() == held


def ledger_row(place: Place) -> None:
    place.insert(vector_cache, embedder="e", content_key="k", vector=b"x")


def make_data_label(place: Place) -> None:
    with place.products.begin() as connection:
        connection.execute(sa.schema.CreateSchema("ai_craw"))
        connection.execute(sa.schema.CreateTable(data_label))


def data_label_row(place: Place) -> None:
    make_data_label(place)
    place.insert(data_label, id_sanpham="P", description="", date_created=DAY, platform="", name_store="")


def dagster_run(place: Place) -> None:
    place.sql("insert into runs (run_id, status) values ('r', 'SUCCESS')")


def daemon_tick(place: Place) -> None:
    place.sql("insert into daemon_heartbeats (daemon_type, daemon_id, timestamp) values ('SENSOR', 'd', now())")


def one_product(place: Place) -> None:
    sync(place.platform.vector_store, [record("P1")])


def stored_file(place: Place) -> None:
    (place.root / "images").mkdir(parents=True)
    (place.root / "images" / "a").write_bytes(b"a")


def test_a_platform_that_is_not_empty_is_left_alone(
    backup_folder: Path, manifest: Manifest, make_place: MakePlace
) -> None:
    other = make_place()
    steps: dict[str, Callable[[Place], None]] = {
        "files in": stored_file,
        "1 products": one_product,
        "daemon_heartbeats of database dagster": daemon_tick,
        "runs of database dagster": dagster_run,
        r"labeling\.vector_cache": ledger_row,
        r"ai_craw\.data_label": data_label_row,
    }
    for named, write in steps.items():
        write(other)
        held = other.contents()
        with pytest.raises(ConfigurationError, match=named):
            restore(other.platform, backup_folder, manifest, silent)
        assert other.contents() == held


def test_vectors_of_another_embedder_are_refused_before_anything_is_written(
    empty: Place, backup_folder: Path, manifest: Manifest
) -> None:
    identity = EmbedderIdentity("other", "r1", "p1", DIMENSION)
    with contextlib.closing(store_of(empty.milvus_uri, f"c_{uuid.uuid4().hex}", identity)) as store:
        with pytest.raises(EmbedderMismatchError, match="LABELING_EMBEDDER"):
            restore(replace(empty.platform, vector_store=store), backup_folder, manifest, silent)
        assert not store.exists()
    assert not empty.root.exists()


def test_a_collection_of_another_schema_is_refused(empty: Place, backup_folder: Path, manifest: Manifest) -> None:
    collection = manifest.collection.model_copy(update={"schema_version": "0"})
    with pytest.raises(ConfigurationError, match="schema 0"):
        restore(empty.platform, backup_folder, manifest.model_copy(update={"collection": collection}), silent)
    assert not empty.root.exists()


def test_a_backup_of_an_older_release_is_loaded_and_migrated(make_place: MakePlace, empty: Place, folder: Path) -> None:
    old, other = make_place(), make_place()
    to_revision(old.products, "0001")
    ledger_row(old)
    old.sql("update alembic_version set version_num = '16e3655b4d9b'")
    dagster_run(old)
    manifest = backed_up(old, folder)
    assert manifest.databases["labeling"].revision == "0001"
    restore(other.platform, folder, manifest, silent)
    held, newest = other.contents(), empty.contents()
    assert held["labeling"]["labeling.alembic_version"] == newest["labeling"]["labeling.alembic_version"]
    assert held["labeling"].keys() == newest["labeling"].keys()
    assert held["labeling"]["labeling.vector_cache"] == b"e\tk\t\\\\x78\n"
    assert held["dagster"]["public.alembic_version"] == newest["dagster"]["public.alembic_version"]
    assert held["dagster"]["public.runs"].startswith(b"1\tr\t")


def to_revision(engine: sa.Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


@pytest.mark.parametrize("database", ["labeling", "dagster"])
def test_a_backup_of_a_newer_release_is_refused(
    empty: Place, backup_folder: Path, manifest: Manifest, database: str
) -> None:
    newer = manifest.databases[database].model_copy(update={"revision": "9999"})
    changed = manifest.model_copy(update={"databases": {**manifest.databases, database: newer}})
    with pytest.raises(ConfigurationError, match="9999"):
        restore(empty.platform, backup_folder, changed, silent)
    assert not empty.root.exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is a backup as far as its files go."""
    folder = tmp_path_factory.mktemp("backups") / "whole"
    with new_backup(folder) as backup:
        for number in range(5):
            with backup.create(f"storage/{number}") as file:
                file.write(b"content")
        backup.finish({}, NO_COLLECTION)
    return folder


def flip(path: Path) -> None:
    path.write_bytes(b"Content")


def truncate(path: Path) -> None:
    path.write_bytes(b"conten")


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink], ids=["flipped", "truncated", "missing"])
def test_every_damaged_file_is_found(whole: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    damage(folder / "storage" / "3")
    with pytest.raises(ConfigurationError, match=r"1 of 5 files .* storage/3\."):
        verify_files(folder, read_manifest(folder), silent)


def test_a_folder_without_a_backup_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "not there"):
        with pytest.raises(ConfigurationError, match="no backup"):
            read_manifest(folder)
    (tmp_path / UNFINISHED).touch()
    with pytest.raises(ConfigurationError, match="interrupted"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "newer release"),
        ({"format_version": "x"}, "damaged"),
        ({"files": [{"path": "../../etc/passwd", "size_bytes": 1, "sha256": ""}]}, "damaged"),
        ({"files": [{"path": "/etc/passwd", "size_bytes": 1, "sha256": ""}]}, "damaged"),
        ({"collection": None}, "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(
    whole: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = json.loads((whole / MANIFEST).read_text()) | change
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=message):
        read_manifest(tmp_path)


@given(
    content=st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text() | st.just("format_version"), children),
    ).map(lambda value: json.dumps(value).encode())
)
def test_garbage_for_a_manifest_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ConfigurationError):
        read_manifest(folder)


def test_a_backup_can_be_read_by_its_owner_alone(backup_folder: Path) -> None:
    assert backup_folder.stat().st_mode & 0o077 == 0
