"""What the labels in use are worth, compared with another model or prompt, or with the truth.

How labels are compared stands in `products/comparison.py` and `services/comparison.py`.
"""

import datetime as dt
import time

import dagster as dg

from labeling_assets.defs.evaluation import reports
from labeling_assets.errors import ConfigurationError
from labeling_assets.failures import raise_for_step
from labeling_assets.metadata import SECONDS
from labeling_assets.resources import (
    ImageStoreResource,
    ProductDatabaseResource,
    StorageResource,
    VisionModelResource,
)
from labeling_assets.services.comparison import Sample, Side, evaluate, read_side, sampled_days
from labeling_assets.services.evaluation_files import keep_evaluation
from labeling_assets.services.known_truth import KnownTruth
from labeling_assets.settings import Settings

MAX_RETRIES, RETRY_DELAY_SECONDS = 2, 30.0
SAMPLE_IMAGES = 50


class EvaluationConfig(dg.Config):
    """What is compared: `MODEL[@PROMPT]` on both sides, as `labeling compare --help` explains.

    By default the model and prompt in use and the embedded model, on images of the days that the platform looks back.
    """

    a: str = ""
    b: str = "embedded"
    sample: int = SAMPLE_IMAGES
    seed: int = 0
    start: str | None = None
    end: str | None = None


@dg.asset(
    group_name="evaluation",
    owners=["team:data-platform"],
    kinds={"postgres"},
    deps=["product_images", "qwen_labels"],
    pool="vision_model",
)
def label_evaluation(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    product_database: ProductDatabaseResource,
    image_store: ImageStoreResource,
    vision_model: VisionModelResource,
    storage: StorageResource,
) -> dg.MaterializeResult[None]:
    """How two models or prompts label the same images: agreement field by field, validity, tokens, time and cost.

    - **Source** images of product_images, drawn by the product type in qwen_labels; labels of both sides through the
    ledger; the truth of the demo's images.
    - **Stored in** `label_evaluation/` below LABELING_STORAGE: a JSON file with everything, and a page to look at.
    - **Re-run** adds one more result; what was asked before is not asked again.
    - **Cost** up to two model calls an image of the sample.
    """
    started, settings = time.monotonic(), Settings.load()
    try:
        if config.sample < 1:
            raise ConfigurationError(f"sample is {config.sample}.", "Compare at least one image.")
        choices = [read_side(text, vision_model.backend, vision_model.model) for text in (config.a, config.b)]
        a, b = (Side(choice, vision_model.other(choice.backend, choice.model)) for choice in choices)
        today = dt.datetime.now(settings.zone).date()
        days = sampled_days(_as_day(config.start), _as_day(config.end), today, settings.look_back_days)
        evaluation = evaluate(
            a,
            b,
            Sample(*days, config.sample, config.seed),
            storage_root=storage.root,
            image_store=image_store.get(),
            ledger=product_database.ledger(),
            truth=KnownTruth(settings.home / "demo"),
            prices=settings.prices,
        )
        result, page = keep_evaluation(storage.root, evaluation, image_store.get())
    except Exception as error:  # noqa: BLE001 - raised again as what Dagster understands
        tries = context.op_execution_context.retry_number
        raise_for_step(error, tries, max_retries=MAX_RETRIES, first_delay_seconds=RETRY_DELAY_SECONDS)
    context.log.info("%s and %s agree by %.3f", evaluation.a.name, evaluation.b.name, evaluation.comparison.agreement)
    return dg.MaterializeResult(
        metadata={
            **reports.evaluation(evaluation),
            "page": dg.MetadataValue.path(str(page)),
            "result": dg.MetadataValue.path(str(result)),
            SECONDS: round(time.monotonic() - started, 3),
        }
    )


def _as_day(text: str | None) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no day.", "Give start and end as YYYY-MM-DD.") from error
