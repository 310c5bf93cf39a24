"""Work in batches that fit the memory of the device: one that does not is halved, and the size that fits is kept.

Also here: what errors of the two runtimes mean, since neither has a class for each.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from labeling_assets.errors import ConfigurationError

FloatArray = npt.NDArray[np.float32]
Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

_OUT_OF_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "is smaller than requested bytes",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""What torch (CUDA, MPS, CPU) and onnxruntime (its arena, with and without a limit, CUDA) and CUDA's libraries say."""
_DTYPE_TROUBLE = (
    "not implemented for 'half'",
    "not implemented for 'bfloat16'",
    "unsupported scalartype",
    "expected scalar type",
    "same dtype",
    "does not support bfloat16",
    "could not find an implementation",
    "cublas_status_not_supported",
)
"""What torch and onnxruntime say where an operation does not exist in a number type."""

_log = logging.getLogger(__name__)


class Batches:
    """The size of a batch that fits, and the work in batches of it.

    Args:
        size: Items computed at once, to begin with.
        release: Called after an out-of-memory error: gives back what the runtime holds in reserve.

    Attributes:
        size: Items computed at once.
    """

    def __init__(self, size: int, release: Callable[[], None] = lambda: None) -> None:
        self.size = size
        self._release = release

    def run(self, items: Iterable[Item], compute: Callable[[Sequence[Item]], FloatArray]) -> Iterator[FloatArray]:
        """What `compute` gives for the items, in order, in arrays of one row per item.

        Raises:
            ConfigurationError: A single item does not fit the memory.
        """
        iterator = iter(items)
        while batch := list(itertools.islice(iterator, self.size)):
            yield from self._halved_until_it_fits(batch, compute)

    def _halved_until_it_fits(
        self, batch: Sequence[Item], compute: Callable[[Sequence[Item]], FloatArray]
    ) -> Iterator[FloatArray]:
        parts = collections.deque([batch])
        while parts:
            part = parts.popleft()
            try:
                vectors = compute(part)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise ConfigurationError(
                        f"The model does not fit the memory even with a single item: {first_line(error)}",
                        "Free the device, raise LABELING_GPU_MEMORY_SHARE, or choose another LABELING_DEVICE.",
                    ) from error
            else:
                yield vectors
                continue
            # Behind the handler: the error held the frames, and these the tensors.
            half = max(1, len(part) // 2)
            self.size = min(self.size, half)  # another thread may halve its part meanwhile
            self._release()
            _log.warning("%d items do not fit the memory at once; from here on %d are computed.", len(part), half)
            parts.extendleft([part[half:], part[:half]])


def prepared_ahead(
    pool: ThreadPoolExecutor, prepare: Callable[[Item], Prepared], items: Iterable[Item], ahead: int
) -> Iterator[Prepared]:
    """What `prepare` makes of the items, in order, at most `ahead` of them waiting to be read."""
    waiting: collections.deque[Future[Prepared]] = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(prepare, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextlib.contextmanager
def must_fit(device: str) -> Iterator[None]:
    """For the block that loads and tries a model: memory that does not suffice is one line.

    Raises:
        ConfigurationError: The memory does not suffice.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigurationError(
            f"The model does not fit the memory of {device}: {first_line(error)}",
            "Free the device, raise LABELING_GPU_MEMORY_SHARE, choose a smaller model, or set LABELING_DEVICE=cpu.",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a runtime had too little memory, on a device or on the host."""
    return isinstance(error, MemoryError) or _says(error, _OUT_OF_MEMORY)


def is_dtype_error(error: BaseException) -> bool:
    """Whether an operation does not exist in the number type of the model."""
    return _says(error, _DTYPE_TROUBLE)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _says(error: BaseException, phrases: Sequence[str]) -> bool:
    message = str(error).lower()
    return any(phrase in message for phrase in phrases)
