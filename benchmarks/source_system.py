"""The loop of the source system, told anew, as the baseline of `whole_day`.

It does what that system does, in its order and in our own words: the day is crawled at once, products that Milvus
holds are found by conditions joined with `or`, and one worker takes row after row: download the image, shrink it, ask
the model, parse, describe; download the image again for its vector, embed image and text singly; insert five rows and
flush. Clients keep their connections, nothing waits without need, and prompt, model options, description, embedder and
collection are the platform's own, so that only the way of working differs.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import sqlalchemy as sa
from PIL import Image
from sqlalchemy.dialects.postgresql import insert

from labeling_assets.products.description import describe
from labeling_assets.products.labels import LABEL_SCHEMA, ProductLabels
from labeling_assets.products.prompt import build_prompt
from labeling_assets.services.embedding import Embedder
from labeling_assets.services.milvus.schema import VECTOR_FIELDS, collection_schema, index_parameters
from labeling_assets.services.tables import data_label
from labeling_assets.services.vision.ollama import context_tokens
from labeling_assets.services.vision.tokens import OUTPUT_TOKENS

if TYPE_CHECKING:
    import ollama
    from pymilvus import MilvusClient

CHECKED_AT_ONCE = 100
INSERTED_AT_ONCE = 5
EDGE_PX = 512
JPEG_QUALITY = 90
Row = Mapping[str, Any]
Item = TypeVar("Item")

CRAWL = """
    select product_id::text, image, published_at, title, store, gp_code, link, spend::float8, clicks, unique_clicks,
           unique_atc, impression, reach, quantity
    from ai_craw.product_marketing_summary
    where published_at >= :start and published_at < :end and image is not null and image <> ''
    order by published_at desc
"""


class SourceSystem:
    """One worker with its connections; a context manager.

    Args:
        engine: Database with the source table.
        milvus_uri: Address of Milvus.
        collection: Created where missing.
        ollama_url: Address of the model server.
        model: Name of the model.
        embedder: Embeds images and texts.
    """

    def __init__(
        self, engine: sa.Engine, milvus_uri: str, collection: str, ollama_url: str, model: str, embedder: Embedder
    ) -> None:
        import ollama
        from pymilvus import MilvusClient

        self._engine = engine
        self._collection = collection
        self._model = model
        self._embedder = embedder
        self._open = contextlib.ExitStack()
        self._milvus: MilvusClient = self._open.enter_context(contextlib.closing(MilvusClient(milvus_uri)))
        self._ollama: ollama.Client = self._open.enter_context(ollama.Client(ollama_url, timeout=300))
        self._http = self._open.enter_context(httpx.Client(timeout=30, follow_redirects=True))

    def __enter__(self) -> SourceSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def process(self, start: dt.datetime, end: dt.datetime) -> int:
        """Work on the rows published in a half-open span of time; returns how many were inserted."""
        self._prepare()
        with self._engine.connect() as connection:
            result = connection.execute(sa.text(CRAWL), {"start": start, "end": end})
            crawled = [dict(row) for row in result.mappings()]
        existing = self._existing([row["product_id"] for row in crawled])
        new = [row for row in crawled if row["product_id"] not in existing]
        records = (self._embedded(row, self._label(row["image"])) for row in new)
        for batch in _batches(records, INSERTED_AT_ONCE):
            self._insert(batch)
        return len(new)

    def _prepare(self) -> None:
        with self._engine.begin() as connection:
            data_label.create(connection, checkfirst=True)
        if self._milvus.has_collection(self._collection):
            self._milvus.load_collection(self._collection)
            return
        dimension = self._embedder.identity.dimension
        self._milvus.create_collection(self._collection, schema=collection_schema(dimension))
        indexes = self._milvus.prepare_index_params()
        for field in VECTOR_FIELDS:
            indexes.add_index(field, index_name=field, **index_parameters("FLAT", dimension))
        self._milvus.create_index(self._collection, indexes, sync=False)
        self._milvus.load_collection(self._collection)

    def _existing(self, ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for batch in _batches(ids, CHECKED_AT_ONCE):
            condition = " or ".join(f'id_sanpham == "{id_}"' for id_ in batch)
            rows = self._milvus.query(self._collection, filter=condition, output_fields=["id_sanpham"])
            found.update(row["id_sanpham"] for row in rows)
        return found

    def _label(self, url: str) -> ProductLabels:
        """Ask the model about an image."""
        file = io.BytesIO()
        image = self._download(url)
        image.thumbnail((EDGE_PX, EDGE_PX), Image.Resampling.LANCZOS)
        image.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True)
        prompt = build_prompt()
        response = self._ollama.chat(
            self._model,
            [{"role": "user", "content": prompt, "images": [file.getvalue()]}],
            format=LABEL_SCHEMA,
            options={"temperature": 0, "num_predict": OUTPUT_TOKENS, "num_ctx": context_tokens(prompt)},
        )
        return ProductLabels.model_validate(_parsed(response.message.content or ""))

    def _embedded(self, row: Row, labels: ProductLabels) -> dict[str, Any]:
        """The row of the collection, with vectors of the image, fetched anew, and of the description."""
        platform, store = row["gp_code"] or "Website", row["store"] or "unknown"
        id_ = row["product_id"]
        description = describe(
            labels, title=row["title"], name_store=store, platform=platform, id_sanpham=id_, language="vi"
        )
        numbers = {name: row[name] for name in ("spend", "impression", "quantity")}
        impressions = row["impression"] or 0
        digest = hashlib.sha256(json.dumps(dict(row), default=str).encode()).hexdigest()
        return labels.model_dump() | {
            "id_sanpham": id_,
            "image_vector": self._embedder.embed_images([self._download(row["image"])])[0],
            "description_vector": self._embedder.embed_texts([description])[0],
            "image": row["image"],
            "description": description,
            "metadata": {**labels.model_dump(), **numbers, "clicks": row["clicks"], "reach": row["reach"]},
            "date": row["published_at"].date().isoformat(),
            "like": int(impressions * random.uniform(0.01, 0.06)),
            "comment": int(impressions * random.uniform(0.001, 0.011)),
            "share": int(impressions * random.uniform(0.0005, 0.0055)),
            "link_redirect": row["link"] or "",
            "platform": platform,
            "name_store": store,
            "title": row["title"],
            "published_at": int(row["published_at"].timestamp() * 1000),
            "image_sha256": "",
            "row_hash": digest,
            "record_hash": digest,
            "has_image_vector": True,
            **numbers,
        }

    def _download(self, url: str) -> Image.Image:
        response = self._http.get(url, headers={"User-Agent": "Mozilla/5.0"})
        response.raise_for_status()
        image: Image.Image = Image.open(io.BytesIO(response.content))
        if image.mode in ("RGBA", "LA", "P"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")

    def _insert(self, records: list[dict[str, Any]]) -> None:
        self._milvus.insert(self._collection, records)
        self._milvus.flush(self._collection)
        names = ("id_sanpham", "description", "platform", "name_store")
        rows = [{name: record[name] for name in names} | {"date_created": record["date"]} for record in records]
        statement = insert(data_label).values(rows)
        changed = {name: statement.excluded[name] for name in rows[0]} | {"updated_at": sa.func.now()}
        with self._engine.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["id_sanpham"], set_=changed))


def _parsed(reply: str) -> Any:  # noqa: ANN401 - JSON has no type
    """The object in a reply: without code fences, or else somewhere in the text."""
    text = re.sub(r"^```(?:json)?|```$", "", reply.strip()).strip()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return json.loads(text[text.index("{") : text.rindex("}") + 1])


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
