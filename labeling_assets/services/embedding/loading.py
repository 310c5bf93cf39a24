"""The embedder of a setting: which family it is of, where its files are, and one copy on each device."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.embedding import Embedder
from labeling_assets.services.embedding.batches import must_fit
from labeling_assets.services.embedding.devices import choose_devices, onnx_devices, torch_devices
from labeling_assets.services.embedding.hub import model_files
from labeling_assets.services.embedding.jina import FILES as JINA_FILES
from labeling_assets.services.embedding.pool import EmbedderPool
from labeling_assets.services.embedding.presets import EMBEDDED, EMBEDDED_DIMENSION, JINA, PRESETS, preset_of
from labeling_assets.services.embedding.towers import TowerEmbedder, Towers


def load_embedder(
    name: str, device: str = "auto", dtype: str = "auto", dimension: int = 0, batch_size: int = 0, share: float = 1.0
) -> Embedder:
    """The embedder of a name, on one device or on several.

    Args:
        name: `embedded`, a preset, `owner/name` of the Hugging Face Hub, or a folder.
        device: See `devices.choose_devices`.
        dtype: `auto`, `float32`, `float16` or `bfloat16`.
        dimension: Numbers of a vector; 0: all.
        batch_size: Items computed at once; 0: 16 on a CPU, 64 on a GPU.
        share: Share of a GPU's memory that this process may take.

    Raises:
        ConfigurationError: There is no such embedder, or it does not run so; the message is one line.
    """
    if name == EMBEDDED:
        return _embedded(device, dtype, dimension)
    preset = preset_of(name)
    if _is_jina(preset.model_id):
        from labeling_assets.services.embedding.jina import JinaTowers, require_onnx

        require_onnx()
        find = functools.partial(model_files, preset.model_id, preset.revision)
        return _on_each_device(
            choose_devices(device, onnx_devices()),
            lambda one: JinaTowers(find, one, dtype, share),
            _shown_name(name, preset.model_id),
            preset.licence,
            dimension,
            batch_size,
        )
    from labeling_assets.services.embedding.dual_encoder import PATTERNS, DualEncoderTowers, require_torch

    files = model_files(preset.model_id, preset.revision, PATTERNS)
    require_torch()
    devices = choose_devices(device, torch_devices())
    revision = files.revision(PATTERNS)
    return _on_each_device(
        devices,
        lambda one: DualEncoderTowers(files.folder, revision, one, dtype, share),
        _shown_name(name, preset.model_id),
        preset.licence,
        dimension,
        batch_size,
    )


def _embedded(device: str, dtype: str, dimension: int) -> Embedder:
    from labeling_assets.services.embedding.embedded import EmbeddedEmbedder

    if device not in ("auto", "cpu") or dtype not in ("auto", "float32"):
        raise ConfigurationError(
            f"The embedded embedder computes in float32 on the CPU, not in {dtype} on {device}.",
            "Unset LABELING_DEVICE and LABELING_DTYPE.",
        )
    if dimension not in (0, EMBEDDED_DIMENSION):
        raise ConfigurationError(
            f"The embedded embedder has {EMBEDDED_DIMENSION} dimensions, not {dimension}.",
            "Unset LABELING_EMBEDDER_DIMENSION.",
        )
    return EmbeddedEmbedder()


def _on_each_device(
    devices: tuple[str, ...],
    load: Callable[[str], Towers],
    name: str,
    licence: str,
    dimension: int,
    batch_size: int,
) -> Embedder:
    """One copy per device; none stays loaded if one fails."""
    with contextlib.ExitStack() as loaded:
        embedders = []
        for device in devices:
            with must_fit(device):
                towers = load(device)
                loaded.callback(towers.close)
                embedders.append(
                    TowerEmbedder(towers, name=name, licence=licence, dimension=dimension, batch_size=batch_size)
                )
        embedder = embedders[0] if len(embedders) == 1 else EmbedderPool(embedders)
        loaded.pop_all()
    return embedder


def _is_jina(model: str) -> bool:
    """Whether it is jina-clip-v2, or a folder of it: by its settings, or with nothing but its export.

    Repositories of other dual encoders often have a folder `onnx` beside their weights.
    """
    folder = Path(model).expanduser()
    if model == PRESETS[JINA].model_id or _model_type(folder) == "jina_clip":
        return True
    has_export = any((folder / "onnx" / file).is_file() for file in JINA_FILES.values())
    return has_export and not any(folder.glob("*.safetensors"))


def _model_type(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or broken: the family's own code tells what it needs
        return ""
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


def _shown_name(name: str, model_id: str) -> str:
    """The preset's name or the model id; of a folder the last part, since the digest tells what is in it."""
    by_id = {preset.model_id: preset_name for preset_name, preset in PRESETS.items()}
    if Path(model_id).expanduser().is_dir():
        return Path(model_id).expanduser().resolve().name
    return by_id.get(model_id, name)
