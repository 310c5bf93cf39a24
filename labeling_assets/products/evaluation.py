"""What one comparison of two labelers found, with all that is needed to judge it later, and its form as JSON.

The scores themselves are in `comparison.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labeling_assets.products.comparison import Answer, ComparedImage, Comparison, worst_first
from labeling_assets.products.labels import SCHEMA_VERSION

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: a model with a prompt.

    Attributes:
        backend: embedded, ollama or openai.
        model: Name of the model.
        digest: Its digest.
        prompt_version: Version of the prompt.
    """

    backend: str
    model: str
    digest: str
    prompt_version: str

    @property
    def name(self) -> str:
        """For people: `ollama:qwen2.5vl:latest@1`."""
        model = "embedded" if self.backend == "embedded" else f"{self.backend}:{self.model}"
        return f"{model}@{self.prompt_version}"


@dataclass(frozen=True)
class Evaluation:
    """A comparison that was made.

    Attributes:
        made_at: When, with time zone.
        a: One side.
        b: The other side.
        first_day: First business day of which images were drawn.
        last_day: Last one.
        seed: Seed of the sample.
        unreadable_images: Images drawn that the image store could not give; they are not compared.
        images: What was compared, the least agreement first.
        comparison: The scores.
    """

    made_at: dt.datetime
    a: Contender
    b: Contender
    first_day: dt.date
    last_day: dt.date
    seed: int
    unreadable_images: int
    images: Sequence[ComparedImage]
    comparison: Comparison

    @property
    def is_of_one_side(self) -> bool:
        """Whether both sides are the same model and prompt, so that only the truth can tell anything."""
        return (self.a.digest, self.a.prompt_version) == (self.b.digest, self.b.prompt_version)

    def as_json(self) -> dict[str, Any]:
        """Everything as values of JSON: the scores first, then each image with both labels and the truth."""
        scores = asdict(self.comparison)
        return {
            "format_version": FORMAT_VERSION,
            "made_at": self.made_at.isoformat(),
            "schema_version": SCHEMA_VERSION,
            "a": {**asdict(self.a), "name": self.a.name, **scores.pop("a")},
            "b": {**asdict(self.b), "name": self.b.name, **scores.pop("b")},
            "sample": {
                "first_day": str(self.first_day),
                "last_day": str(self.last_day),
                "seed": self.seed,
                "unreadable_images": self.unreadable_images,
            },
            **{name: list(value) if isinstance(value, tuple) else value for name, value in scores.items()},
            "compared": [_image(image) for image in worst_first(self.images)],
        }


def _image(image: ComparedImage) -> Mapping[str, Any]:
    return {
        "sha256": image.sha256,
        "title": image.title,
        "stratum": image.stratum,
        "agreement": image.agreement,
        "a": _answer(image.a),
        "b": _answer(image.b),
        "truth": image.truth.model_dump() if image.truth else None,
    }


def _answer(answer: Answer) -> Mapping[str, Any]:
    return {**vars(answer), "labels": answer.labels.model_dump() if answer.labels else None}
