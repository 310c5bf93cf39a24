"""What the stand-in model writes: a valid answer that depends on the image alone, or a faulty one."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

VOCABULARY = {
    "image_recipient": ["Mom", "Dad", "Grandma", "Wife", "Husband", "Best friend", "Teacher", "Dog"],
    "target_audience": ["Dog owners", "Nurses", "Newlyweds", "Gamers", "New parents", "Anglers"],
    "usage_purpose": ["Gift", "Home decor", "Daily wear", "Drinkware", "Keepsake"],
    "occasion": ["Mother's Day", "Christmas", "Birthday", "Wedding", "Graduation", "Tết"],
    "niche_theme": ["Fishing", "Camping", "Faith", "Cats", "Nursing", "Family"],
    "sentiment_tone": ["Funny", "Heartfelt", "Sarcastic", "Inspirational", "Romantic"],
    "message_type": ["Quote", "Pun", "Family saying", "Blessing", "Name only"],
    "personalization_type": ["Custom name", "Custom photo", "Custom date"],
    "product_type": ["Ceramic mug", "T-shirt", "Hoodie", "Wooden plaque", "Fleece blanket"],
    "placement_display_context": ["Desk", "Kitchen", "Wall", "Christmas tree", "Worn on body"],
    "design_style": ["Vintage", "Minimalist", "Watercolor", "Cartoon", "Typography"],
    "color_aesthetic": ["Navy blue", "Pastel pink", "Black and white", "Earth tones"],
    "main_subject": ["sleeping orange cat", "mountain lake at sunset", "bold lettering of a joke"],
    "text": ["Best Mom Ever", "Ông nội tuyệt vời nhất", "Hooked on fishing", ""],
}
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]

FaultKind = Literal[
    "missing",  # 404: no such model
    "unauthorized",  # 401
    "busy",  # 503: the queue is full
    "limited",  # 429 with Retry-After: too many requests a minute
    "broken",  # 500: the runner died
    "overflow",  # 400: prompt and image exceed the context
    "refused",  # 400 for another reason
    "hang",  # never answers
    "close",  # breaks the connection while it answers
    "page",  # 200 with a web page
    "cut_off",  # stops in the middle at the token limit
    "endless",  # repeats itself to the token limit
    "echo",  # valid JSON whose text repeats itself
    "prose",  # the object with words around it
    "fenced",  # the object in a code fence
    "broken_json",  # an object that can be mended
    "no_json",  # words only
    "wrong_types",  # numbers and objects where lists belong
    "empty",  # nothing
]


@dataclass(frozen=True)
class Fault:
    """One way to fail, and for which requests.

    Attributes:
        kind: What goes wrong.
        share: Share of the images concerned, chosen by `seed` and the image.
        seed: Another seed chooses other images.
        first_tries: Only the first so many requests about an image; None: all.
        images: sha256 of the images concerned; empty: any.
    """

    kind: FaultKind
    share: float = 1.0
    seed: int = 0
    first_tries: int | None = None
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"no such fault: {self.kind!r}")

    def applies(self, sha: str, number: int) -> bool:
        """Whether the `number`th request about an image fails so."""
        draw = int(hashlib.sha256(f"{self.seed}:{sha}".encode()).hexdigest()[:8], 16) / 2**32
        is_concerned = sha in self.images if self.images else draw < self.share
        return is_concerned and (self.first_tries is None or number <= self.first_tries)


def write_reply(schema: Mapping[str, Any] | None, sha: str, fault: FaultKind | None) -> str:
    """The reply to an image of this sha256, in full length; `schema` is the request's `format`."""
    answer = answer_for(schema or {"type": "string"}, "text", sha)
    if fault == "wrong_types":
        return json.dumps({name: {"value": 1} for name in answer})
    if fault == "echo":
        return json.dumps(answer | {"text": "love you " * 40})
    text = json.dumps(answer, ensure_ascii=False)
    return {
        "cut_off": text[: len(text) // 2],
        "endless": text[: len(text) // 2] + '"love", ' * 10_000,
        "prose": f"Sure! Here is the label you asked for:\n\n{text}\n\nLet me know if {{anything}} is missing.",
        "fenced": f"```json\n{text}\n```",
        "broken_json": text.replace('"', "'").replace("[", "[ ,", 1).rstrip("}") + ",",
        "no_json": "I am sorry, I cannot see an image in this conversation.",
        "empty": "",
    }.get(fault or "", text)


def answer_for(schema: Mapping[str, Any], name: str, sha: str) -> Any:
    """A value that is valid against a flat JSON schema and depends on the image and the field alone."""
    chance = random.Random(f"{sha}:{name}")
    words = VOCABULARY.get(name, WORDS)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            return {key: answer_for(part, key, sha) for key, part in schema.get("properties", {}).items()}
        case "array":
            count = chance.randint(schema.get("minItems", 1), min(schema.get("maxItems", 3), 3))
            if "items" in schema and schema["items"].get("type") != "string":
                return [answer_for(schema["items"], f"{name}.{index}", sha) for index in range(count)]
            return chance.sample(words, min(count, len(words)))
        case "integer" | "number":
            return chance.randint(int(schema.get("minimum", 0)), int(schema.get("maximum", 100)))
        case "boolean":
            return chance.random() < 0.5
        case _:
            return chance.choice(words)
