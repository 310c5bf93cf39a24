"""Models are downloaded once, at a pinned revision, and go on where they broke off; offline, one line says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.embedding.dual_encoder import PATTERNS as DUAL_ENCODER_PATTERNS
from labeling_assets.services.embedding.hub import _is_whole, files_digest, model_files
from labeling_assets.services.embedding.presets import PRESETS, preset_of
from labeling_assets_tests.standins.model_hub import COMMIT, MODEL_ID, ModelHub, model_hub

PATTERNS = ("config.json", "onnx/model.onnx", "onnx/model.onnx_data")
FILES = {"config.json": b"{}", "onnx/model.onnx": bytes(range(256)) * 100_000, "onnx/other.onnx": b"x", "evil.py": b"x"}
FETCH = f"""
import logging, sys
from labeling_assets.errors import ConfigurationError
from labeling_assets.services.embedding.hub import model_files
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
try:
    files = model_files(sys.argv[1], sys.argv[2], {PATTERNS!r})
    print(files.folder); print(files.revision({PATTERNS!r}))
except ConfigurationError as error:
    print("ERROR", error)
"""


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub(FILES) as server:
        yield server


def environment(cache: Path, **values: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return inherited | {"HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | values


def fetch(cache: Path, model: str = MODEL_ID, revision: str = COMMIT, **values: str) -> list[str]:
    """Lines that a process prints which asks for the files of a model."""
    command = [sys.executable, "-c", FETCH, model, revision]
    done = subprocess.run(command, env=environment(cache, **values), capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.startswith(("httpx", "huggingface_hub"))]


def test_a_model_is_downloaded_once_and_its_size_is_said_beforehand(hub: ModelHub, tmp_path: Path) -> None:
    said, folder, revision = fetch(tmp_path, HF_ENDPOINT=hub.url)
    assert said.endswith(f"Downloading 25.6 MB of {MODEL_ID} from the Hugging Face Hub, once.")
    assert (Path(folder) / "onnx/model.onnx").read_bytes() == FILES["onnx/model.onnx"]
    assert revision.startswith(f"{COMMIT[:12]}+")
    fetched = {path.rpartition("/")[2] for _, path, _ in hub.requests}
    assert not fetched & {"other.onnx", "evil.py"}
    hub.requests.clear()
    assert fetch(tmp_path, HF_ENDPOINT=hub.url) == [folder, revision]
    assert hub.requests == []
    assert fetch(tmp_path, HF_HUB_OFFLINE="1") == [folder, revision]


def test_a_download_goes_on_where_the_connection_broke_off(hub: ModelHub, tmp_path: Path) -> None:
    hub.breaks_after_bytes = 24_000_000
    *_, folder, _ = fetch(tmp_path, HF_ENDPOINT=hub.url)
    assert (Path(folder) / "onnx/model.onnx").read_bytes() == FILES["onnx/model.onnx"]
    ranges = [header for method, path, header in hub.requests if method == "GET" and path.endswith("model.onnx")]
    assert ranges[0] is None
    assert [int(str(header).removeprefix("bytes=").rstrip("-")) > 0 for header in ranges[1:]] == [True]


def test_a_download_that_was_killed_is_not_taken_for_complete(hub: ModelHub, tmp_path: Path) -> None:
    hub.stalls_after_bytes = 24_000_000
    command = [sys.executable, "-c", FETCH, MODEL_ID, COMMIT]
    with subprocess.Popen(command, env=environment(tmp_path, HF_ENDPOINT=hub.url), stdout=subprocess.PIPE) as process:
        assert hub.has_stalled.wait(timeout=120)
        process.kill()
    hub.stalls_after_bytes = None
    assert fetch(tmp_path, HF_HUB_OFFLINE="1")[0].startswith("ERROR")
    *_, folder, _ = fetch(tmp_path, HF_ENDPOINT=hub.url)
    assert (Path(folder) / "onnx/model.onnx").read_bytes() == FILES["onnx/model.onnx"]


@pytest.mark.parametrize(
    ("present", "is_whole"),
    [
        ({"config.json": b"{}"}, False),
        ({"config.json": b"{}", "onnx/model.onnx": b"weights are in model.onnx_data"}, False),
        ({"config.json": b"{}", "onnx/model.onnx": b""}, True),
        ({"config.json": b"{}", "onnx/model.onnx": b"weights are here"}, True),
        ({"onnx/model.onnx": b"in model.onnx_data", "onnx/model.onnx_data": b"x", "config.json": b"{}"}, True),
    ],
)
def test_a_cache_that_another_program_filled_in_part_is_not_taken_for_whole(
    tmp_path: Path, present: dict[str, bytes], is_whole: bool
) -> None:
    snapshot = tmp_path / "hub" / f"models--{MODEL_ID.replace('/', '--')}" / "snapshots" / COMMIT
    for name, content in present.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(content)
    said = fetch(tmp_path, HF_HUB_OFFLINE="1")
    assert (said[0] == str(snapshot)) is is_whole, said
    assert is_whole or "cannot be downloaded" in said[0]


def test_a_part_of_a_cache_is_completed_by_a_download(hub: ModelHub, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / f"models--{MODEL_ID.replace('/', '--')}" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(b"{}")
    *_, folder, _ = fetch(tmp_path, HF_ENDPOINT=hub.url)
    assert (Path(folder) / "onnx/model.onnx").read_bytes() == FILES["onnx/model.onnx"]


def test_a_checkpoint_without_weights_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert not _is_whole(tmp_path, DUAL_ENCODER_PATTERNS)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x")
    assert _is_whole(tmp_path, DUAL_ENCODER_PATTERNS)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_real_model_without_a_network_is_one_clear_line(tmp_path: Path, name: str) -> None:
    preset = PRESETS[name]
    (line,) = fetch(tmp_path, preset.model_id, preset.revision, HF_HUB_OFFLINE="1")
    assert line.startswith(f"ERROR {preset.model_id} is not on this machine and cannot be downloaded: ")
    assert line.endswith("copy the model here and set LABELING_EMBEDDER to its folder.")


def test_a_model_that_the_hub_has_not_is_named(hub: ModelHub, tmp_path: Path) -> None:
    (line,) = fetch(tmp_path, "owner/other", HF_ENDPOINT=hub.url)
    assert line.startswith("ERROR The Hugging Face Hub has no model owner/other")


@pytest.mark.parametrize("name", ["no/such/folder", "nothing", "", "../x", "a/..", "a b/c"])
def test_what_is_no_model_at_all_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="LABELING_EMBEDDER"):
        model_files(name or "?", "", PATTERNS)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds none of"):
        model_files(str(tmp_path), "", PATTERNS).revision(PATTERNS)


def test_the_digest_is_kept_and_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = files_digest(tmp_path, PATTERNS)
    kept = json.loads((tmp_path / ".labeling-digest.json").read_text())
    assert first in kept.values()
    assert files_digest(tmp_path, PATTERNS) == first
    (tmp_path / "config.json").write_text('{"other": 1}')
    assert files_digest(tmp_path, PATTERNS) != first
    (tmp_path / "README.md").write_text("not counted")
    (tmp_path / "config.json").write_text("{}")
    assert files_digest(tmp_path, PATTERNS) == first


@pytest.mark.parametrize("kept", ["", "{", "[1]", "null"])
def test_a_damaged_note_of_the_digest_is_written_anew(tmp_path: Path, kept: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = files_digest(tmp_path, PATTERNS)
    (tmp_path / ".labeling-digest.json").write_text(kept)
    assert files_digest(tmp_path, PATTERNS) == first
    assert first in (tmp_path / ".labeling-digest.json").read_text()


def test_the_digest_does_not_need_a_place_to_be_kept(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = files_digest(tmp_path, PATTERNS)
    (tmp_path / ".labeling-digest.json").unlink()
    (tmp_path / ".labeling-digest.json").mkdir()  # cannot be written, as on a disk that is mounted to be read only
    assert files_digest(tmp_path, PATTERNS) == first


def test_presets_are_pinned_and_found_by_name_and_by_id() -> None:
    assert {preset.licence for preset in PRESETS.values()} == {"CC-BY-NC-4.0", "Apache-2.0"}
    for name, preset in PRESETS.items():
        assert len(preset.revision) == 40
        assert preset_of(name) == preset_of(preset.model_id) == preset
    assert preset_of("owner/other").revision == ""
