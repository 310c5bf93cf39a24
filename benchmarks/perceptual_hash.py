"""Perceptual hashes of 2,000 JPEGs of 800 x 600 px, against ImageHash.

Ours is `phash_bodies`, with a thread a CPU, as it comes. The baseline is what the documentation of ImageHash shows,
`imagehash.phash(Image.open(…))`, one file after the other. The files are in memory, so that no disk takes part. All
hashes of both are compared: at most two bits of 64 may differ. Beside the result, ours with one thread and ImageHash in
as many threads as ours are told.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks.measure import print_result, rounds_in_turn
from labeling_assets.services.images.perceptual_hash import phash_bodies

IMAGES = int(os.environ.get("LABELING_BENCH_IMAGES", "2000"))
SIZE_PX = (800, 600)
ROUNDS = 3
GOAL = 4.0
MAX_BITS = 2
Hashes = npt.NDArray[np.uint64]


def draw_jpeg(seed: int) -> bytes:
    """A JPEG that compresses like a photo: soft light, sharp things, and the noise of a sensor."""
    chance = np.random.default_rng(seed)
    light = chance.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(light).resize(SIZE_PX, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for x, y, size, *colour in chance.integers(0, [*SIZE_PX, 200, 256, 256, 256], (12, 6)).tolist():
        draw.ellipse((x, y, x + size, y + size), fill=tuple(colour))
    grain = chance.integers(-8, 9, (SIZE_PX[1], SIZE_PX[0], 1), dtype=np.int16)
    pixels = (np.asarray(image, dtype=np.int16) + grain).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def ours(bodies: Sequence[bytes], threads: int | None = None) -> Hashes:
    hashes, errors = phash_bodies(bodies, threads)
    assert not errors, errors
    return hashes


def image_hash(body: bytes) -> int:
    import imagehash

    with Image.open(io.BytesIO(body)) as image:
        return int(str(imagehash.phash(image)), 16)


def theirs(bodies: Sequence[bytes]) -> Hashes:
    return np.array([image_hash(body) for body in bodies], dtype=np.uint64)


def theirs_in_threads(bodies: Sequence[bytes]) -> Hashes:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.array(list(pool.map(image_hash, bodies)), dtype=np.uint64)


def rate(hashes_of: Callable[[Sequence[bytes]], Hashes], bodies: Sequence[bytes], wanted: Hashes) -> float:
    """Images a second, once every hash is seen to be the wanted one but for two bits."""
    started = time.perf_counter()
    hashes = hashes_of(bodies)
    seconds = time.perf_counter() - started
    differing = np.bitwise_count(hashes ^ wanted)
    assert differing.max() <= MAX_BITS, differing.max()
    return len(bodies) / seconds


def main() -> None:
    """Measure and print."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bodies = list(pool.map(draw_jpeg, range(IMAGES)))
    sizes = sorted(map(len, bodies))
    print(f"{IMAGES} JPEGs of {sizes[0] // 1024} to {sizes[-1] // 1024} KiB, {os.cpu_count()} CPUs", flush=True)
    wanted = theirs(bodies)
    differing = np.bitwise_count(ours(bodies) ^ wanted)
    print("images by differing bits:", dict(enumerate(np.bincount(differing).tolist())), flush=True)
    one = rate(lambda given: ours(given, threads=1), bodies, wanted)
    print(f"ours with one thread {one:.0f} images a second, ImageHash in threads", end=" ")
    print(f"{rate(theirs_in_threads, bodies, wanted):.0f}", flush=True)
    pairs = rounds_in_turn(lambda _: rate(ours, bodies, wanted), lambda _: rate(theirs, bodies, wanted), ROUNDS)
    print_result("perceptual_hash", [mine / baseline for mine, baseline in pairs], GOAL)


if __name__ == "__main__":
    main()
