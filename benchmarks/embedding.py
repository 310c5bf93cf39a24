"""Embedding of 384 JPEGs of 1,000 px with a tiny CLIP, against the libraries of Hugging Face and the model alone.

Ours is what the asset `clip_vectors` does: `CachedEmbedder` with an empty cache in PostgreSQL around the embedder of a
local checkpoint, opening JPEGs at reduced scale as the image store does. The peers run in an environment of their own
with the same build of torch, on the same files and checkpoint: one image at a time, in batches, in batches that a
`DataLoader` prepares, and `SentenceTransformer.encode`. The ratio of `embedding` is ours to the fastest of them, that
of `embedding_model` ours to the bare model on tensors that are there already.

The model has random weights, 192 wide, 6 layers, 224 px, which cost as much as trained ones. That everybody embeds the
same is seen from the vectors: each of ours must be nearest to the peer's of the same image, once the mean is taken off.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from PIL import Image

from benchmarks.measure import (
    contestants_in_turn,
    database,
    print_medians,
    print_result,
    print_row,
    ratios_to_best,
    scaled,
    temporary_folder,
)
from benchmarks.peers.environments import run_peer
from benchmarks.pictures import draw_jpeg
from labeling_assets.services.connect import Services, close_services
from labeling_assets.services.embedding import Embedder
from labeling_assets.services.embedding.cached import CachedEmbedder
from labeling_assets.services.images.decoding import model_image
from labeling_assets.services.tables import vector_cache
from labeling_assets.settings import Settings
from labeling_assets_tests.standins.tiny_models import tiny_clip

IMAGES = scaled(384, smallest=32)
EDGE_PX = 1_000
MODEL_EDGE_PX = 224
WIDTH = 192
LAYERS = 6
BATCH = 32
ROUNDS = scaled(5)
GOAL = 1.3
GOAL_MODEL = 0.9
SAME_SHARE = 0.98
OURS = "labeling-assets"
BARE = "the bare model on preloaded tensors"
ONCE = {"transformers, one by one": {"how": "single"}}
PEERS = {
    "transformers, batches": {"how": "batches", "batch": BATCH},
    "transformers, batches by DataLoader": {"how": "dataloader", "batch": BATCH},
    "sentence-transformers": {"how": "sentence_transformers", "batch": BATCH},
}
FloatArray = npt.NDArray[np.float32]


class EmbeddingRates:
    """The contestants.

    Args:
        engine: Database of the vector cache.
        embedder: Ours.
        model: Folder of the checkpoint.
        paths: The JPEGs.
    """

    def __init__(self, engine: sa.Engine, embedder: Embedder, model: Path, paths: Sequence[Path]) -> None:
        self._engine = engine
        self._embedder = embedder
        self._model = model
        self._path_by_sha = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}
        self._ours: FloatArray | None = None

    def ours(self, _: int) -> float:
        """Images a second of the platform."""
        with self._engine.begin() as connection:
            key = self._embedder.identity.key
            connection.execute(sa.delete(vector_cache).where(vector_cache.c.embedder == key))
        cached = CachedEmbedder(self._embedder, self._engine)
        started = time.perf_counter()
        vectors, errors = cached.embed_images(list(self._path_by_sha), self._open)
        seconds = time.perf_counter() - started
        assert not errors
        assert cached.counts.computed == len(self._path_by_sha)
        self._ours = checked(vectors, len(self._path_by_sha))
        return len(vectors) / seconds

    def _open(self, sha: str) -> Image.Image:
        return model_image(self._path_by_sha[sha].read_bytes(), self._embedder.image_edge_px)

    def peer(self, settings: dict[str, Any], _: int) -> float:
        """Images a second of a peer, whose vectors must be those of the same images."""
        with temporary_folder() as folder:
            out = folder / "vectors.npy"
            paths = list(map(str, self._path_by_sha.values()))
            job = {"model": str(self._model), "paths": paths, "out": str(out), **settings}
            (answer,) = run_peer("huggingface", "huggingface_embed", job, HF_HUB_OFFLINE="1")
            theirs = checked(np.load(out), len(paths))
        assert answer["torch"] == _torch_version(), f"torch {answer['torch']} in the environment of the peers"
        if self._ours is not None:
            share = same_share(self._ours, theirs)
            assert share >= SAME_SHARE, f"only {share:.0%} of the vectors belong to the same image"
        return len(theirs) / float(answer["seconds"])

    def bare(self) -> Callable[[int], float]:
        """What measures the model alone; its tensors are made now."""
        import torch
        from transformers import AutoModel, AutoProcessor

        model = AutoModel.from_pretrained(self._model, dtype=torch.float32).eval()
        processor_class: Any = AutoProcessor  # its methods have no types
        processor = processor_class.from_pretrained(self._model, backend="pil")
        images = [Image.open(path).convert("RGB") for path in self._path_by_sha.values()]
        batches = [
            processor(images=images[start : start + BATCH], return_tensors="pt")["pixel_values"]
            for start in range(0, len(images), BATCH)
        ]

        def rate(_: int) -> float:
            with torch.inference_mode():
                model.get_image_features(pixel_values=batches[0])
                started = time.perf_counter()
                for batch in batches:
                    model.get_image_features(pixel_values=batch)
                return len(images) / (time.perf_counter() - started)

        return rate


def checked(vectors: FloatArray, count: int) -> FloatArray:
    """The vectors, if they are as many as images and of unit length."""
    assert len(vectors) == count
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    return vectors


def same_share(ours: FloatArray, theirs: FloatArray) -> float:
    """Share of our vectors whose nearest among theirs is of the same image; the means are taken off."""
    centred = [vectors - vectors.mean(axis=0) for vectors in (ours, theirs)]
    mine, other = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in centred)
    return float(np.mean((mine @ other.T).argmax(axis=1) == np.arange(len(mine))))


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


def main() -> None:
    """Measure and print."""
    with temporary_folder() as folder, database() as engine:
        paths = [folder / f"{seed}.jpg" for seed in range(IMAGES)]
        for seed, path in enumerate(paths):
            path.write_bytes(draw_jpeg(seed, EDGE_PX))
        model = tiny_clip(folder / "clip", image_size=MODEL_EDGE_PX, width=WIDTH, layers=LAYERS)
        embedder = Services(Settings(embedder=str(model), device="cpu", dtype="float32")).embedder
        print(f"{IMAGES} JPEGs of {EDGE_PX} px, torch {_torch_version()}; images a second")
        rates = EmbeddingRates(engine, embedder, model, paths)
        rates.ours(0)  # the first run loads what is loaded once
        contestants: dict[str, Callable[[int], float]] = {OURS: rates.ours, BARE: rates.bare()}
        contestants |= {name: functools.partial(rates.peer, settings) for name, settings in PEERS.items()}
        figures = contestants_in_turn(contestants, ROUNDS)
        for name, settings in ONCE.items():
            print_row("embedding", name, images_per_second=rates.peer(settings, 0))
        close_services()
    print_medians("embedding", figures, "images_per_second")
    print_result("embedding_model", [each[OURS] / each[BARE] for each in figures], GOAL_MODEL)
    of_peers = [{name: rate for name, rate in each.items() if name != BARE} for each in figures]
    print_result("embedding", ratios_to_best(of_peers, OURS), GOAL)


if __name__ == "__main__":
    main()
