"""The embedders with a name of their own: model id, pinned revision and licence.

A preset is a model that was looked at: its licence is known and its revision pinned, so that everybody who sets its
name gets the same vectors. Any other id or folder works as well, with what its own files say.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A model on the Hugging Face Hub.

    Attributes:
        model_id: `owner/name`.
        revision: Commit.
        licence: Licence of the weights.
    """

    model_id: str
    revision: str
    licence: str


JINA = "jina-clip-v2"
PRESETS = {
    # CC-BY-NC-4.0: no commercial use without an agreement with Jina AI. The revisions are those of the MTEB benchmark
    # (github.com/embeddings-benchmark/mteb, jina_clip.py and siglip_models.py).
    JINA: Preset("jinaai/jina-clip-v2", "344d954da76eb8ad47a7aaff42d012e30c15b8fe", "CC-BY-NC-4.0"),
    "siglip2-large": Preset(
        "google/siglip2-large-patch16-512", "49488218e80259885f3be61d7a9455faf833b7a8", "Apache-2.0"
    ),
}
EMBEDDED = "embedded"
EMBEDDED_DIMENSION = 1024


def preset_of(name: str) -> Preset:
    """The preset of a name or a model id; for any other id or folder, no revision and an unknown licence."""
    by_id = {preset.model_id: preset for preset in PRESETS.values()}
    return PRESETS.get(name) or by_id.get(name) or Preset(name, "", "see the model card")
