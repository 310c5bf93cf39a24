"""Models in the workers of a real Ray cluster: the same results as in the run, whoever dies."""

from __future__ import annotations

import hashlib
import io
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from embedder_contract import TEXTS, EmbedderContract, picture
from PIL import Image
from ray_faults import FATAL_PIXEL, FAULTY_PIXEL, FragileEmbedder, OnceFatalEmbedder, Unbuildable

from labeling_assets.errors import ConfigurationError, ModelRunnerError, ServiceUnavailableError, VectorError
from labeling_assets.products.labels import Label
from labeling_assets.resources import default_resources
from labeling_assets.services import connect, ray_cluster, ray_workers
from labeling_assets.services.embedding.cached import CachedEmbedder
from labeling_assets.services.embedding.embedded import EmbeddedEmbedder
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.ray_cluster import RayCluster
from labeling_assets.services.ray_engine import RayEmbedder, RayVisionModel
from labeling_assets.services.ray_workers import RayWorkers, RemoteService
from labeling_assets.services.tables import label_ledger, vector_cache
from labeling_assets.services.vision.embedded import EmbeddedVisionModel
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel
from labeling_assets.settings import Settings
from labeling_assets_tests.standins.ollama import OllamaServer

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster of two CPUs on this machine, whose workers find what is defined beside the tests."""
    import ray

    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray_cluster.start_cluster(num_cpus=2, object_store_memory=100 * 2**20)
        yield connect.ray_cluster("", 1.0)
        connect.close_services()
        ray.shutdown()


@pytest.fixture(scope="module")
def embedder(cluster: RayCluster) -> RayEmbedder:
    return RayEmbedder(cluster, EmbeddedEmbedder, (), on_gpu=True)


@pytest.fixture
def fragile(cluster: RayCluster) -> RayEmbedder:
    return RayEmbedder(cluster, FragileEmbedder, (), on_gpu=False)


def process_ids(cluster: RayCluster) -> list[int]:
    import ray

    return [ray.get(actor.ready.remote()) for actor in cluster.workers(on_gpu=False)._actors]


class TestRayEmbedder(EmbedderContract):
    """The contract of every embedder."""


def jpeg_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


JPEGS = {hashlib.sha256(data).hexdigest(): data for data in (jpeg_of(picture(n, (96, 80))) for n in range(24))}
SHAS = list(JPEGS)


def open_image(sha: str) -> Image.Image:
    image = Image.open(io.BytesIO(JPEGS[sha]))
    image.load()
    return image


def in_threads(workers: int) -> EmbeddedEmbedder:
    class Parallel(EmbeddedEmbedder):
        @property
        def workers(self) -> int:
            return workers

    return Parallel()


@pytest.mark.parametrize(
    ("engine_name", "workers", "batch", "order"),
    [
        ("local", 1, 1, slice(None)),
        ("local", 1, 5, slice(None, None, -1)),
        ("local", 4, 16, slice(3, None, 2)),
        ("ray", 2, 3, slice(None)),
        ("ray", 2, 16, slice(None, None, -1)),
    ],
)
def test_no_vector_depends_on_batch_order_workers_or_engine(
    engine: sa.Engine, embedder: RayEmbedder, engine_name: str, workers: int, batch: int, order: slice
) -> None:
    singly = EmbeddedEmbedder()
    shas, texts = SHAS[order], [*TEXTS, *SHAS][order]
    cached = CachedEmbedder(embedder if engine_name == "ray" else in_threads(workers), engine, batch)
    images, errors = cached.embed_images(shas, open_image)
    assert errors == {}
    expected = np.concatenate([singly.embed_images([open_image(sha)]) for sha in shas])
    np.testing.assert_allclose(images, expected, atol=TOLERANCE)
    expected = np.concatenate([singly.embed_texts([text]) for text in texts])
    np.testing.assert_allclose(cached.embed_texts(texts)[0], expected, atol=TOLERANCE)
    assert cached.counts.computed == len(shas) + len(texts)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(sa.func.count()).select_from(vector_cache)).scalar_one()
    assert rows == len(shas) + len(texts)


@pytest.mark.parametrize(("slots", "order"), [(1, 1), (3, -1)])
def test_no_label_depends_on_slots_order_or_engine(
    engine: sa.Engine, cluster: RayCluster, slots: int, order: int
) -> None:
    shas, ledger, labels = SHAS[:8], LabelLedger(engine), []
    for model in (EmbeddedVisionModel(slots), RayVisionModel(cluster, EmbeddedVisionModel, (1,))):
        model.check()
        outcomes = dict(Labeler(model, ledger).label_all(shas[::order], JPEGS.__getitem__))
        labels.append({sha: label.labels for sha, label in outcomes.items() if isinstance(label, Label)})
        ledger.forget(shas)
        assert set(labels[-1]) == set(shas)
        model.close()
    assert labels[0] == labels[1]


def test_a_worker_that_is_killed_loses_no_label_and_repeats_none(engine: sa.Engine, cluster: RayCluster) -> None:
    model = RayVisionModel(cluster, EmbeddedVisionModel, (1,))
    assert model.slots == 2
    labeler = Labeler(model, LabelLedger(engine))
    before = process_ids(cluster)
    labeling = labeler.label_all(SHAS, JPEGS.__getitem__)
    outcomes = [next(labeling) for _ in range(2)]
    os.kill(before[0], signal.SIGKILL)
    outcomes += labeling
    assert sorted(sha for sha, _ in outcomes) == sorted(SHAS)
    assert all(isinstance(label, Label) for _, label in outcomes)
    assert (labeler.counts.model_calls, labeler.counts.refused) == (len(SHAS), 0)
    with engine.connect() as connection:
        entries = connection.execute(sa.select(label_ledger.c.model_calls)).scalars().all()
    assert entries == [1] * len(SHAS)
    after = process_ids(cluster)
    assert before[0] not in after
    assert before[1] in after
    again = Labeler(model, LabelLedger(engine))
    assert all(
        label.is_from_ledger for _, label in again.label_all(SHAS, JPEGS.__getitem__) if isinstance(label, Label)
    )
    assert again.counts.model_calls == 0


def test_a_worker_that_dies_at_work_loses_no_vector(engine: sa.Engine, cluster: RayCluster, tmp_path: Path) -> None:
    dying = RayEmbedder(cluster, OnceFatalEmbedder, (str(tmp_path / "died"),), on_gpu=False)
    images, errors = CachedEmbedder(dying, engine, 6).embed_images(SHAS, open_image)
    assert (tmp_path / "died").exists()
    assert errors == {}
    expected = EmbeddedEmbedder().embed_images([open_image(sha) for sha in SHAS])
    np.testing.assert_allclose(images, expected, atol=TOLERANCE)


def colour(number: int) -> Image.Image:
    return Image.new("RGB", (40, 40), (number, 0, 0))


def test_an_image_that_kills_workers_fails_alone(
    engine: sa.Engine, fragile: RayEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "MAX_DEATHS", 2)
    numbers = [FATAL_PIXEL, 50]
    vectors, errors = CachedEmbedder(fragile, engine).embed_images(
        list(map(str, numbers)), lambda sha: colour(int(sha))
    )
    assert set(errors) == {0}
    assert "2 Ray workers died on the same call" in str(errors[0])
    assert errors[0].can_retry, "the cause may be the cluster"
    assert np.isfinite(vectors[1]).all()


def test_workers_that_die_on_an_image_are_an_error_of_the_row(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "MAX_DEATHS", 1)
    service = RemoteService(FragileEmbedder, (), "identity")
    workers = cluster.workers(on_gpu=False)
    with pytest.raises(ModelRunnerError, match="died"):
        workers.call(service, "embed_images", [colour(FATAL_PIXEL)], fault=ModelRunnerError)
    assert workers.call(service, "process_id") in process_ids(cluster)


def test_an_error_in_a_worker_is_the_same_error_here(fragile: RayEmbedder) -> None:
    with pytest.raises(VectorError) as raised:
        fragile.embed_images([colour(FAULTY_PIXEL)])
    assert type(raised.value) is VectorError
    assert str(raised.value) == "the model gave NaN Leave it out."
    assert len(fragile.embed_images([colour(1)])) == 1, "the worker goes on"


def test_an_unforeseen_error_in_a_worker_names_its_place(cluster: RayCluster) -> None:
    service = RemoteService(FragileEmbedder, (), "identity")
    with pytest.raises(AttributeError, match=r"ray_workers\.py"):
        cluster.workers(on_gpu=False).call(service, "no_such_method")


def test_a_model_that_cannot_be_built_tells_why(cluster: RayCluster) -> None:
    with pytest.raises(ConfigurationError, match=r"The weights are missing\. Download them\."):
        RayEmbedder(cluster, Unbuildable, (), on_gpu=False)


def test_workers_with_other_versions_are_refused(cluster: RayCluster) -> None:
    service = RemoteService(FragileEmbedder, (), "identity")
    with pytest.raises(ConfigurationError, match=r"The Ray workers differ.*on every node"):
        cluster.workers(on_gpu=False).call(service, "workers", expected_mark="another release")


def test_a_cluster_without_room_is_unavailable(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "START_SECONDS", 0.1)
    workers = RayWorkers(1, {"num_cpus": 1000})
    with pytest.raises(ServiceUnavailableError, match="No Ray worker came free"):
        workers.call(RemoteService(FragileEmbedder, (), "identity"), "identity")
    workers.close()


def test_a_call_waits_on_while_workers_come_free_for_others(cluster: RayCluster) -> None:
    workers = RayWorkers(0, {})

    class Contended(queue.SimpleQueue[str]):
        """Another caller is faster, twice."""

        faster = 2

        def get(self, block: bool = True, timeout: float | None = None) -> str:
            if self.faster:
                self.faster -= 1
                workers._put_back("taken by another")
                super().get()
                raise queue.Empty
            return super().get(block, timeout)

    workers._idle = Contended()
    workers._idle.put("mine")
    assert workers._check_out() in ("mine", "taken by another")
    assert workers._idle.faster == 0


@pytest.mark.parametrize("fault", ["LocalRayletDiedError", "ObjectStoreFullError", "RaySystemError", "ConnectionError"])
def test_a_cluster_that_fails_is_unavailable(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    import ray

    def fail(*_: object, **__: object) -> None:
        raise getattr(ray.exceptions, fault, ConnectionError)("the other side is gone")

    with monkeypatch.context() as failing:
        failing.setattr(ray, "get", fail)
        with pytest.raises(ServiceUnavailableError, match="The Ray cluster fails") as raised:
            cluster.workers(on_gpu=False).call(RemoteService(EmbeddedEmbedder, (), "identity"), "identity")
    assert "\n" not in str(raised.value)
    assert RayEmbedder(cluster, EmbeddedEmbedder, (), on_gpu=False).identity == EmbeddedEmbedder().identity


def test_the_information_names_the_engine(embedder: RayEmbedder) -> None:
    info = embedder.model_info()
    assert (info["engine"], info["ray_workers"], embedder.workers) == ("ray", 2, 2)
    assert embedder.identity == EmbeddedEmbedder().identity


def test_ray_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'labeling-assets\[ray\]'"):
        RayCluster("", 1.0)


OWN_CLUSTER = """
import os, signal, sys
from labeling_assets.services import connect

def terminated(*_):
    raise SystemExit(7)

signal.signal(signal.SIGTERM, terminated)
embedder = connect.embedder_on(connect.Engine("ray", "", float(os.cpu_count() or 1)), "embedded", "auto", "auto")
print(embedder.workers, embedder.embed_texts(["mug"]).shape)
assert signal.getsignal(signal.SIGTERM) is terminated, "Ray leaves the handler of the run as it is"
import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
assert is_token_auth_enabled(), "nobody else may send it code"
assert os.environ["RAY_AUTH_MODE"] == "token"
print(ray._private.worker._global_node.get_session_dir_path(), file=sys.stderr)
"""


def test_a_cluster_of_the_process_starts_quietly_and_ends_with_it() -> None:
    command = [sys.executable, "-c", OWN_CLUSTER]
    result = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["1", "(1,", "1024)"]
    (session,) = result.stderr.splitlines()
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert session not in commands


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_is_not_there_is_named_with_the_setting(address: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"The Ray cluster {address} cannot be reached: .*refused") as raised:
        ray_cluster._connect(address)
    assert "LABELING_RAY_ADDRESS" in str(raised.value)


def test_pictures_of_every_mode_reach_the_worker_as_they_are(embedder: RayEmbedder) -> None:
    images: Sequence[Image.Image] = [open_image(SHAS[0]), picture(1).convert("P"), picture(2).convert("RGBA")]
    np.testing.assert_allclose(embedder.embed_images(images), EmbeddedEmbedder().embed_images(images), atol=TOLERANCE)


ENGINE = connect.Engine("ray", "", 1.0)


def test_models_that_compute_are_on_ray_and_share_its_workers(cluster: RayCluster) -> None:
    embedder = connect.embedder_on(ENGINE, "embedded", "auto", "auto")
    model = connect.vision_model_on(ENGINE, "embedded", "", (), "", 1, 5.0, 0)
    assert isinstance(embedder, RayEmbedder)
    assert isinstance(model, RayVisionModel)
    assert embedder is connect.embedder_on(ENGINE, "embedded", "auto", "auto")
    assert embedder._workers is model._workers is cluster.workers(on_gpu=False)
    assert (embedder.workers, model.slots) == (2, 2)
    assert model.name == EmbeddedVisionModel(1).name
    assert len(embedder.embed_texts(["mug"])) == 1


def test_models_on_a_server_are_asked_from_here(cluster: RayCluster) -> None:
    with OllamaServer() as server:
        model = connect.vision_model_on(ENGINE, "ollama", "qwen2.5vl:latest", (server.url,), "", 1, 5.0, 0)
        assert isinstance(model, OllamaVisionModel)


@pytest.mark.parametrize(("engine", "kind"), [("local", EmbeddedEmbedder), ("ray", RayEmbedder)])
def test_the_settings_choose_the_engine(cluster: RayCluster, engine: str, kind: type) -> None:
    resources = default_resources(Settings(engine=engine))
    assert isinstance(resources["embedder"].get(), kind)
