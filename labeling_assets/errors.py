"""Every error that the platform raises on purpose, and whether trying again can help.

    LabelingError
    ├── ConfigurationError            a setting or a set-up step is wrong: nothing runs until it is mended
    │   └── EmbedderMismatchError     vectors of another embedder: re-index or restore the setting
    ├── ServiceUnavailableError  (r)  an outside system does not answer: the step fails, finished rows stay
    ├── SupersededError          (r)  another run has taken over: this one stops, and looks again
    ├── DayError                      one day cannot be processed: it fails, the other days of the run go on
    ├── BudgetSpentError              the next call could cost more than is left: the day fails, later ones wait
    └── RowError                      one row cannot be processed: it is quarantined, the day goes on
        ├── InvalidRowError           the row itself breaks a limit
        ├── ImageError
        │   ├── ImageUnavailableError    (r)  time-out, refused connection, 429 or 5xx after all retries
        │   ├── ImageNotFoundError            404, 410 and other final answers of the image host
        │   ├── ImageAddressRefusedError      private address, bad scheme, too many redirects
        │   ├── ImageTooLargeError            over the limit of bytes or pixels
        │   ├── ImageTooSmallError            under the smallest edge that a vision model reads
        │   └── InvalidImageError             not an image, cut off, or of a format that is not decoded
        ├── LabelError
        │   ├── InvalidReplyError             not JSON, or not the schema, also after the re-ask
        │   ├── TruncatedReplyError           cut off at the token limit, also after the re-ask
        │   ├── RepetitiveReplyError          the model repeats itself, also after the re-ask
        │   ├── ContextOverflowError          image and prompt do not fit in the model's context
        │   ├── ModelRunnerError         (r)  the model server broke on this image
        │   └── ModelTimeoutError        (r)  no reply within the deadline
        └── VectorError                       the embedder returned no usable vector
            └── EmbedderWorkerError      (r)  workers died while they embedded this row

(r) marks the classes for which a retry can help (`can_retry`). What belongs here: classes and their meaning. How an
error becomes a Dagster failure is in `failures.py`.
"""

from __future__ import annotations

from typing import ClassVar


class LabelingError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: What is wrong, in one sentence, with the value concerned. Never a secret.
        remedy: What the reader can do about it, in one sentence or command.

    Attributes:
        failed_attempts: Requests without an answer that led to it, on which a server may have worked.
    """

    can_retry: ClassVar[bool] = False
    failed_attempts: int = 0

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """The message, followed by the remedy where there is one."""
        return f"{self.message} {self.remedy}".strip()


class ConfigurationError(LabelingError):
    """A setting is wrong or a set-up step is missing; no retry helps until a person mends it."""


class EmbedderMismatchError(ConfigurationError):
    """Stored vectors were made by another embedder than the one in use."""


class ServiceUnavailableError(LabelingError):
    """An outside system did not answer after all retries; what was finished is kept."""

    can_retry = True


class SupersededError(LabelingError):
    """Another run has taken over what this one was writing."""

    can_retry = True


class DayError(LabelingError):
    """One day cannot be processed as a whole; the other days of the run go on."""


class BudgetSpentError(LabelingError):
    """The next call of a model could cost more than is left of the budget; what was paid for is kept."""


class RowError(LabelingError):
    """One row cannot be processed; it is quarantined with this error's class and message."""


class InvalidRowError(RowError):
    """A value of the row breaks a limit of the platform."""


class ImageError(RowError):
    """The image of a row cannot be used."""


class ImageUnavailableError(ImageError):
    """The image host did not deliver: time-out, connection refused, 429 or 5xx after all retries."""

    can_retry = True


class ImageNotFoundError(ImageError):
    """The image host answered with a final status such as 404, 410 or 403."""


class ImageAddressRefusedError(ImageError):
    """The URL, or a redirect of it, leads to a scheme or an address that is not fetched."""


class ImageTooLargeError(ImageError):
    """The image is over the limit of bytes or pixels."""


class ImageTooSmallError(ImageError):
    """An edge of the image is shorter than a vision model can read."""


class InvalidImageError(ImageError):
    """The body is not an image, is cut off, or is of a format that is not decoded."""


class LabelError(RowError):
    """The vision model gave no usable label for the image."""


class InvalidReplyError(LabelError):
    """The reply is not JSON or not of the label schema, also after the re-ask."""


class TruncatedReplyError(LabelError):
    """The reply was cut off at the token limit, also after the re-ask."""


class RepetitiveReplyError(LabelError):
    """The reply repeats itself, also after the re-ask."""


class ContextOverflowError(LabelError):
    """Image, prompt and schema do not fit in the context of the model."""


class ModelRunnerError(LabelError):
    """The model server broke while it worked on this image."""

    can_retry = True


class ModelTimeoutError(LabelError):
    """The model server did not reply within the deadline."""

    can_retry = True


class VectorError(RowError):
    """The embedder returned no usable vector for the row."""


class EmbedderWorkerError(VectorError):
    """Workers of the embedder died while they worked on this row."""

    can_retry = True
