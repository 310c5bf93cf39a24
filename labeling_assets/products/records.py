"""The row of each stage, from Postgres to Milvus, as typed records, and their form as Arrow tables.

A stage's record is the record of the stage before plus what the stage adds, so a row can be followed by eye from one
Parquet file to the next. Add a column here and it appears in Parquet, in the asset's column schema and in its lineage.
Vectors are Arrow fixed-size lists of float32 and never Python lists; see `vectors.py`.
"""

from __future__ import annotations

import datetime as dt
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

Record = TypeVar("Record", bound=BaseModel)
TrademarkLevel = Literal["No TM", "Slight TM", "TM Resemblance", "Direct TM"]
ProductStatus = Literal["new", "changed", "unchanged"]
LABEL_LISTS = (
    "image_recipient",
    "target_audience",
    "usage_purpose",
    "occasion",
    "niche_theme",
    "sentiment_tone",
    "message_type",
    "personalization_type",
    "product_type",
    "placement_display_context",
    "design_style",
    "color_aesthetic",
)
LABEL_FIELDS = (*LABEL_LISTS, "trademark_level", "main_subject", "text")


class RawProduct(BaseModel):
    """One row of the source table, and what follows from it alone."""

    model_config = ConfigDict(frozen=True)

    product_id: str | None = Field(description="Product id of the source, as text; null where the source has none.")
    image: str = Field(description="URL of the product image.")
    published_at: dt.datetime = Field(description="Time of publication, in UTC.")
    title: str | None = Field(description="Title of the product.")
    store: str | None = Field(description="Store, as the source has it.")
    gp_code: str | None = Field(description="Platform code, as the source has it.")
    link: str | None = Field(description="Product page.")
    spend: float | None = Field(description="Advertising spend, in the currency of the source.")
    clicks: int | None = Field(description="Clicks.")
    unique_clicks: int | None = Field(description="Unique clicks.")
    unique_atc: int | None = Field(description="Unique additions to cart.")
    impression: int | None = Field(description="Impressions.")
    reach: int | None = Field(description="People reached.")
    quantity: int | None = Field(description="Items sold.")

    id_sanpham: str = Field(
        description="Key of the product: product_id, or SP_ and 8 hex digits of the row's identity."
    )
    date: dt.date = Field(description="Business day: published_at in LABELING_TIMEZONE.")
    platform: str = Field(description="gp_code, or Website.")
    name_store: str = Field(description="store, or unknown.")
    link_redirect: str = Field(description="link, or empty.")
    like: int = Field(description="Likes, estimated as 1-6 % of impressions.")
    comment: int = Field(description="Comments, estimated as 0.1-1.1 % of impressions.")
    share: int = Field(description="Shares, estimated as 0.05-0.55 % of impressions.")
    is_engagement_estimated: bool = Field(description="Whether like, comment and share are estimates.")
    row_hash: str = Field(description="sha256 of the row's source values, hex.")


class DedupedProduct(RawProduct):
    """One distinct product of the day, compared with Milvus."""

    status: ProductStatus = Field(description="new, changed or unchanged against Milvus, by id and row_hash.")
    duplicate_count: int = Field(description="Other rows of the day with the same id, dropped in favour of this one.")


class ImagedProduct(DedupedProduct):
    """One distinct product with the facts of its image, or the reason why it has none."""

    image_sha256: str | None = Field(description="sha256 of the fetched bytes, hex; null when quarantined.")
    image_size_bytes: int | None = Field(description="Size as fetched.")
    image_width_px: int | None = Field(description="Width after EXIF rotation.")
    image_height_px: int | None = Field(description="Height after EXIF rotation.")
    image_format: str | None = Field(description="JPEG, PNG, WEBP …")
    image_phash: str | None = Field(description="64-bit perceptual hash, 16 hex digits.")
    model_image_size_bytes: int | None = Field(description="Size of the JPEG that the models read.")
    model_image_width_px: int | None = Field(description="Its width, at most 512.")
    model_image_height_px: int | None = Field(description="Its height, at most 512.")
    image_path: str | None = Field(description="Where the image is stored, below LABELING_STORAGE.")
    quarantine_reason: str | None = Field(description="Error class and message; null when the image is usable.")


class LabeledProduct(ImagedProduct):
    """One labeled product: fifteen fields, description, and who said so."""

    image_recipient: list[str] = Field(description="Whom the printed design is for.")
    target_audience: list[str] = Field(description="Who would buy or use it.")
    usage_purpose: list[str] = Field(description="What it is used for.")
    occasion: list[str] = Field(description="Occasions it suits.")
    niche_theme: list[str] = Field(description="Niches and themes.")
    sentiment_tone: list[str] = Field(description="Tone of the design.")
    message_type: list[str] = Field(description="Kind of message.")
    personalization_type: list[str] = Field(description="Kind of personalization.")
    product_type: list[str] = Field(description="Kind of product.")
    placement_display_context: list[str] = Field(description="Where it is placed or shown.")
    design_style: list[str] = Field(description="Style of the design.")
    color_aesthetic: list[str] = Field(description="Colours and colour mood.")
    trademark_level: TrademarkLevel = Field(description="Closeness to a trademark.")
    main_subject: str = Field(description="What is printed on the product, not the product.")
    text: str = Field(description="Exact words printed on the product.")
    description: str = Field(description="Markdown description in LABELING_DESCRIPTION_LANGUAGE.")
    label_model: str = Field(description="Name of the model that labeled the image.")
    label_digest: str = Field(description="Digest of that model.")
    prompt_version: str = Field(description="Version of the prompt.")
    schema_version: str = Field(description="Version of the label schema.")
    prompt_tokens: int = Field(description="Tokens read for the label.")
    output_tokens: int = Field(description="Tokens written for the label.")
    label_seconds: float = Field(description="Seconds the model server took.")
    parse_step: str = Field(description="How the reply was parsed: direct, fenced, embedded or repaired.")
    is_from_ledger: bool = Field(description="Whether the label was paid for earlier.")
    label_cost: float = Field(
        0.0, description="Cost of the label, whenever it was paid for, at the prices of this run; 0 without prices."
    )
    label_shared_from: str | None = Field(
        None, description="sha256 of the near duplicate that was labeled in the place of the image; null when itself."
    )


class EmbeddedProduct(LabeledProduct):
    """One product ready for Milvus. Its two vectors are columns of their own, see `vectors.py`."""

    embedder: str = Field(description="EmbedderIdentity.key of the vectors.")
    has_image_vector: bool = Field(description="Whether image search may return the product.")
    record_hash: str = Field(description="sha256 of everything that Milvus stores of the product, hex.")


_ARROW_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    dt.datetime: pa.timestamp("us", tz="UTC"),
    dt.date: pa.date32(),
    list[str]: pa.list_(pa.string()),
}


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:  # noqa: ANN401 - annotations have no common type
    """Arrow type and nullability of a field annotation."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _arrow_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in get_args(annotation) if arg is not type(None))
        return _arrow_type(inner)[0], True
    if origin is Literal:
        return pa.string(), False
    return _ARROW_TYPES[annotation], False


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """Arrow schema of a record class; field descriptions become column metadata."""
    fields = []
    for name, info in model.model_fields.items():
        arrow_type, is_nullable = _arrow_type(info.annotation)
        fields.append(pa.field(name, arrow_type, is_nullable, {"description": info.description or ""}))
    return pa.schema(fields)


def to_table(records: Iterable[BaseModel], model: type[BaseModel]) -> pa.Table:
    """The records as an Arrow table with the columns of `model`, in order."""
    return pa.Table.from_pylist([record.model_dump() for record in records], schema=arrow_schema(model))


def required_columns(model: type[BaseModel]) -> frozenset[str]:
    """Columns that every file of a record class has; files of earlier releases lack those with a default."""
    return frozenset(name for name, info in model.model_fields.items() if info.is_required())


def from_table(table: pa.Table, model: type[Record]) -> Iterator[Record]:
    """The rows of a table as records, batch by batch; columns that `model` does not have are left out."""
    required = required_columns(model)
    columns = [name for name in model.model_fields if name in required or name in table.column_names]
    for batch in table.select(columns).to_batches(max_chunksize=500):
        for row in batch.to_pylist():
            yield model.model_validate(row)
