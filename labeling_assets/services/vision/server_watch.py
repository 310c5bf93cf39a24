"""Tells an image that a model server fails on from a server that fails on every image.

What one answer of a server means is in `server_errors.py`; here is what several in a row mean.
"""

from __future__ import annotations

import threading

from labeling_assets.errors import (
    ContextOverflowError,
    LabelError,
    ModelRunnerError,
    ModelTimeoutError,
    ServiceUnavailableError,
)

MAX_FAILURES_IN_A_ROW = 20
"""Images in a row on which the server may break until it counts as broken: an outage must not quarantine whole days."""


class ServerWatch:
    """Counts the images in a row that a model server failed on. Thread-safe.

    Args:
        model: Name of the model, for messages.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._failures_in_a_row = 0
        self._has_answered = False
        self._lock = threading.Lock()

    def note_answer(self) -> None:
        """The server answered about an image."""
        with self._lock:
            self._failures_in_a_row, self._has_answered = 0, True

    def judge(self, error: LabelError) -> LabelError:
        """The error as the image gets it.

        An overflow is the image's fault only when the server answered the image before: a context that is too small
        for all is mended at the server, and must leave no refusal that stays.

        Raises:
            ServiceUnavailableError: The server failed on too many images in a row.
        """
        if not isinstance(error, ModelRunnerError | ModelTimeoutError | ContextOverflowError):
            self.note_answer()  # one that cannot be used is an answer too
            return error
        with self._lock:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                raise ServiceUnavailableError(
                    f"{self._model} failed on {MAX_FAILURES_IN_A_ROW} images in a row; at last: {error}.",
                    "Look at the log of the model server.",
                ) from error
            is_of_image = self._has_answered and self._failures_in_a_row == 1
        if isinstance(error, ContextOverflowError) and not is_of_image:
            return ModelRunnerError(error.message, "Where it stays so, give the model server a larger context.")
        return error
