"""Hugging Face code and sentence-transformers: image vectors of JPEGs. Job: model, paths, out, how, batch.

`how`: single, batches, dataloader (two processes prepare batches, as PyTorch's documentation advises), or
sentence_transformers. The unit vectors are saved as `out`.
"""
# mypy: disable-error-code="import-not-found, import-untyped"
# The libraries are in the environment of the peer only.

from __future__ import annotations

import time
from typing import Any, cast

from PIL import Image

from benchmarks.peers.job import answer, read_job

PROCESSES = 2


def main() -> None:
    """Do the job."""
    job = read_job()
    import numpy as np
    import torch

    embed = sentence_transformers(job) if job["how"] == "sentence_transformers" else transformers(job)
    with torch.inference_mode():
        embed(job["paths"][:2])  # what the first call does once is not measured
        started = time.perf_counter()
        vectors = embed(job["paths"])
        seconds = time.perf_counter() - started
    np.save(job["out"], vectors)
    answer(seconds=seconds, torch=str(torch.__version__))


def open_rgb(path: str) -> Image.Image:
    """A decoded image."""
    with Image.open(path) as image:
        return image.convert("RGB")


def sentence_transformers(job: dict[str, Any]) -> Any:  # noqa: ANN401 - a function on arrays
    """`SentenceTransformer.encode` on opened images."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(job["model"], device="cpu")

    def embed(paths: list[str]) -> Any:  # noqa: ANN401 - an array
        images = [open_rgb(path) for path in paths]
        return model.encode(images, batch_size=job["batch"], normalize_embeddings=True)

    return embed


def transformers(job: dict[str, Any]) -> Any:  # noqa: ANN401 - a function on arrays
    """`CLIPModel.get_image_features` on what `CLIPImageProcessor` makes of opened images."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import AutoModel, CLIPImageProcessorPil

    model = AutoModel.from_pretrained(job["model"]).eval()
    processor = CLIPImageProcessorPil.from_pretrained(job["model"])

    def pixels(paths: list[str]) -> Any:  # noqa: ANN401 - a tensor
        return processor(images=[open_rgb(path) for path in paths], return_tensors="pt")["pixel_values"]

    def embed(paths: list[str]) -> Any:  # noqa: ANN401 - an array
        processes = PROCESSES if job["how"] == "dataloader" else 0
        loader: DataLoader[Any] = DataLoader(
            cast("Any", paths), batch_size=job.get("batch", 1), collate_fn=pixels, num_workers=processes
        )
        vectors = []
        for batch in loader:
            features = model.get_image_features(pixel_values=batch).pooler_output
            vectors.append(torch.nn.functional.normalize(features, dim=-1))
        return torch.cat(vectors).numpy()

    return embed


if __name__ == "__main__":
    main()
