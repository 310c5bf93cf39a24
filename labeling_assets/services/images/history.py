"""What is remembered of image URLs and of image contents: tables `image_fetches` and `images`.

A URL is remembered with its content, or with what was wrong with its content. What the host or the network did wrong is
not remembered, since the next time may differ.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labeling_assets.errors import (
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    InvalidImageError,
)
from labeling_assets.products.images import ImageFacts
from labeling_assets.services.images.fetcher import Validators
from labeling_assets.services.postgres import database_errors, waits_out_outages
from labeling_assets.services.tables import image_fetches, images

logger = logging.getLogger(__name__)
BATCH_ROWS = 1000
_FACTS = tuple(field.name for field in fields(ImageFacts))
CONTENT_ERRORS = (ImageTooLargeError, ImageTooSmallError, InvalidImageError)
_CONTENT_ERROR_BY_NAME: Mapping[str, type[ImageError]] = {error.__name__: error for error in CONTENT_ERRORS}


@dataclass(frozen=True)
class Remembered:
    """What a URL delivered last: content with its facts, or an error of the content.

    Attributes:
        validators: What the host said to recognise the content by.
        sha256: Of the content, hex; empty where it was no usable image.
        facts: Of the content; None where it was no usable image, or where they are lost.
        error: What was wrong with the content; None where it was usable.
    """

    validators: Validators = field(default_factory=Validators)
    sha256: str = ""
    facts: ImageFacts | None = None
    error: ImageError | None = None


class ImageHistory:
    """Tables `labeling.image_fetches` and `labeling.images`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @waits_out_outages
    def look_up(self, urls: Sequence[str]) -> dict[str, Remembered]:
        """What is remembered of each of the URLs; those of which nothing is are left out.

        Raises:
            ServiceUnavailableError: The database does not answer.
        """
        url_by_key = {_key(url): url for url in urls}
        query = (
            sa.select(image_fetches, images)
            .outerjoin(images, images.c.sha256 == image_fetches.c.image_sha256)
            .where(image_fetches.c.url_sha256 == sa.any_(sa.literal(list(url_by_key), sa.ARRAY(sa.Text))))
        )
        with database_errors("The image history cannot be read"), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return {url_by_key[row["url_sha256"]]: _remembered(row) for row in rows}

    @waits_out_outages
    def facts(self, sha256: str) -> ImageFacts | None:
        """The facts of a content; None where it was never decoded.

        Raises:
            ServiceUnavailableError: The database does not answer.
        """
        query = sa.select(images).where(images.c.sha256 == sha256)
        with database_errors("The image history cannot be read"), self._engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return _facts(row) if row else None

    @waits_out_outages
    def remember(self, learned: Mapping[str, Remembered]) -> None:
        """Keep what URLs delivered, in one transaction. The files of the contents must be stored before.

        Raises:
            ServiceUnavailableError: The database does not answer.
        """
        contents = {seen.sha256: seen.facts for seen in learned.values() if seen.sha256 and seen.facts}
        content_rows = [{"sha256": sha256, **asdict(facts)} for sha256, facts in contents.items()]
        fetch_rows = [_fetch_row(url, seen) for url, seen in learned.items()]
        with database_errors("The image history cannot be written"), self._engine.begin() as connection:
            _upsert(connection, images, "sha256", content_rows)
            _upsert(connection, image_fetches, "url_sha256", fetch_rows)

    @waits_out_outages
    def forget(self, urls: Iterable[str]) -> None:
        """Drop what is remembered of the URLs, so that they are fetched anew.

        Raises:
            ServiceUnavailableError: The database does not answer.
        """
        keys = sorted({_key(url) for url in urls})
        with database_errors("The image history cannot be written"), self._engine.begin() as connection:
            for start in range(0, len(keys), BATCH_ROWS):
                batch = sa.literal(keys[start : start + BATCH_ROWS], sa.ARRAY(sa.Text))
                connection.execute(sa.delete(image_fetches).where(image_fetches.c.url_sha256 == sa.any_(batch)))


def _key(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


def _facts(row: sa.RowMapping) -> ImageFacts:
    return ImageFacts(**{name: row[name] for name in _FACTS})


def _remembered(row: sa.RowMapping) -> Remembered:
    error_class = _CONTENT_ERROR_BY_NAME.get(row["error_class"])
    return Remembered(
        validators=Validators(row["etag"], row["last_modified"]),
        sha256=row["image_sha256"] or "",
        facts=_facts(row) if row["sha256"] else None,
        error=error_class(row["error_message"]) if error_class else None,
    )


def _fetch_row(url: str, seen: Remembered) -> dict[str, Any]:
    return {
        "url_sha256": _key(url),
        "url": url,
        "etag": seen.validators.etag,
        "last_modified": seen.validators.last_modified,
        "image_sha256": seen.sha256 or None,
        "error_class": type(seen.error).__name__ if seen.error else None,
        "error_message": seen.error.message if seen.error else None,
    }


def _upsert(connection: sa.Connection, table: sa.Table, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    # In the order of the keys, so that two writers wait for one another and never block each other. One statement for
    # all rows, since the answer of each waits its turn beside the threads that decode.
    statement = insert(table).values(sorted((dict(row) for row in rows), key=lambda row: str(row[key])))
    new: dict[str, sa.ColumnElement[Any]] = {name: statement.excluded[name] for name in rows[0] if name != key}
    if "fetched_at" in table.c:
        new["fetched_at"] = sa.func.now()
    connection.execute(statement.on_conflict_do_update(index_elements=[key], set_=new))
