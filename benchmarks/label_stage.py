"""The label stage against the limit of a model server: slots divided by latency.

Ours is what the asset `qwen_labels` does: ledger look-up, claims, reading ahead, the real `ollama` client, parsing, and
a commit of each reply to PostgreSQL before the slot gets its next image. Each round also measures a bare client, which
only posts a prepared request again and again from as many threads: what this machine and the stand-in allow. The ratio
is ours to the limit, which no client can reach.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import sqlalchemy as sa
from PIL import Image, ImageDraw

from benchmarks.measure import database, print_result, rounds_in_turn
from labeling_assets.products.labels import LABEL_SCHEMA, Label
from labeling_assets.products.prompt import build_prompt
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.tables import label_ledger
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel
from labeling_assets_tests.standins.process import ollama_process

SLOTS = 4
LATENCY_MS = 200
IMAGES = 300
BARE_REQUESTS = 100
ROUNDS = 3
GOAL = 0.95
MODEL = "qwen2.5vl:latest"
LIMIT_PER_SECOND = SLOTS / (LATENCY_MS / 1000)


def draw_jpegs(count: int) -> dict[str, bytes]:
    """Distinct 512 px JPEGs of about 30 kilobytes, by sha256, as the image store gives them to models."""
    jpegs = {}
    for seed in range(count):
        chance = random.Random(seed)
        image = Image.new("RGB", (512, 512), "white")
        draw = ImageDraw.Draw(image)
        for _ in range(60):
            x, y, size = chance.randrange(512), chance.randrange(512), chance.randrange(5, 60)
            draw.ellipse((x, y, x + size, y + size), fill=tuple(chance.randrange(256) for _ in range(3)))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90, optimize=True, progressive=True)
        jpegs[hashlib.sha256(buffer.getvalue()).hexdigest()] = buffer.getvalue()
    return jpegs


def label_rate(url: str, engine: sa.Engine, jpegs: dict[str, bytes]) -> float:
    """Images a second of the label stage, with an empty ledger."""
    model = OllamaVisionModel([url], MODEL, SLOTS, timeout_seconds=60)
    with engine.begin() as connection:
        connection.execute(sa.delete(label_ledger).where(label_ledger.c.model_digest == model.digest))
    labeler = Labeler(model, LabelLedger(engine))
    started = time.perf_counter()
    outcomes = dict(labeler.label_all(jpegs, jpegs.__getitem__))
    seconds = time.perf_counter() - started
    model.close()
    assert len(outcomes) == len(jpegs) == labeler.counts.model_calls
    assert all(isinstance(outcome, Label) for outcome in outcomes.values())
    return len(jpegs) / seconds


def bare_rate(url: str, jpeg: bytes) -> float:
    """Requests a second of a client that does nothing but post."""
    image = base64.b64encode(jpeg).decode()
    message = {"role": "user", "content": build_prompt(), "images": [image]}
    body = json.dumps({"model": MODEL, "messages": [message], "stream": False, "format": LABEL_SCHEMA})
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(SLOTS) as threads:
        started = time.perf_counter()
        for response in threads.map(lambda _: client.post("/api/chat", content=body), range(BARE_REQUESTS)):
            response.raise_for_status()
        return BARE_REQUESTS / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    jpegs = draw_jpegs(IMAGES)
    sizes = sorted(len(jpeg) for jpeg in jpegs.values())
    print(f"{IMAGES} distinct images of {sizes[0] // 1024} to {sizes[-1] // 1024} KiB; {SLOTS} slots, {LATENCY_MS} ms")
    print(f"limit: {SLOTS} slots / {LATENCY_MS} ms = {LIMIT_PER_SECOND:g} images a second; baseline: a bare client")
    with database() as engine, ollama_process(slots=SLOTS, latency_ms=LATENCY_MS) as url:
        pairs = rounds_in_turn(
            lambda _: label_rate(url, engine, jpegs), lambda _: bare_rate(url, next(iter(jpegs.values()))), ROUNDS
        )
    print_result("label_stage", [ours / LIMIT_PER_SECOND for ours, _ in pairs], GOAL)


if __name__ == "__main__":
    main()
