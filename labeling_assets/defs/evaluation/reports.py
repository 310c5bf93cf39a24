"""What `label_evaluation` tells of each result: numbers that the UI plots over time, and a table by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from labeling_assets.products.comparison import FieldScore, Quality, SideScore
from labeling_assets.products.evaluation import Evaluation


def evaluation(found: Evaluation) -> dict[str, Any]:
    """Of `label_evaluation`; every number every time, 0 where the truth is not known."""
    scores = found.comparison
    return {
        "side_a": found.a.name,
        "side_a_digest": found.a.digest,
        "side_b": found.b.name,
        "side_b_digest": found.b.digest,
        "sampled_days": f"{found.first_day} to {found.last_day}",
        "images": scores.images,
        "images_unreadable": found.unreadable_images,
        "images_labeled_by_both": scores.labeled_by_both,
        "images_with_truth": scores.with_truth,
        "agreement": round(scores.agreement, 4),
        "flip_rate": round(scores.flip_rate, 4),
        **_side("a", scores.a),
        **_side("b", scores.b),
        **{f"agreement_{score.field}": round(score.agreement, 4) for score in scores.fields},
        **{f"f1_a_{score.field}": round(score.a.f1 if score.a else 0.0, 4) for score in scores.fields},
        "fields": _field_table(found),
        "parse_steps": _count_table("parse step", scores.a.parse_steps, scores.b.parse_steps),
        "errors": _count_table("error", scores.a.errors, scores.b.errors),
    }


def _side(name: str, score: SideScore) -> dict[str, Any]:
    return {
        f"validity_{name}": round(score.validity, 4),
        f"f1_{name}": round(score.f1 or 0.0, 4),
        f"model_calls_{name}": score.model_calls,
        f"prompt_tokens_{name}": score.prompt_tokens,
        f"output_tokens_{name}": score.output_tokens,
        f"model_seconds_{name}": round(score.seconds, 3),
        f"cost_{name}": round(score.cost, 6),
    }


def _field_table(found: Evaluation) -> dg.MarkdownMetadataValue:
    """One line a field; without the columns of the truth where it is not known."""
    has_truth = found.comparison.with_truth > 0
    names = ["field", "agreement", "same", "flips"]
    names += ["A: F1", "A: precision, recall", "B: F1", "B: precision, recall"] if has_truth else []
    lines = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    rows = ([score.field.replace("_", "\\_"), *_cells(score)] for score in found.comparison.fields)
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def _cells(score: FieldScore) -> list[str]:
    cells = [_percent(number) for number in (score.agreement, score.exact, score.flip_rate)]
    return cells + [cell for side in (score.a, score.b) if side for cell in _quality_cells(side)]


def _quality_cells(quality: Quality) -> list[str]:
    return [_percent(quality.f1), f"{_percent(quality.precision)}, {_percent(quality.recall)}"]


def _count_table(title: str, a: Mapping[str, int], b: Mapping[str, int]) -> dg.MarkdownMetadataValue:
    names = sorted({*a, *b})
    if not names:
        return dg.MetadataValue.md("None.")
    lines = [f"| {title} | A | B |", "| --- | ---: | ---: |"]
    return dg.MetadataValue.md(
        "\n".join([*lines, *(f"| {name} | {a.get(name, 0)} | {b.get(name, 0)} |" for name in names)])
    )


def _percent(number: float) -> str:
    return f"{100 * number:.1f} %"
