"""The bytes of images, named by their content, in a local folder or an object store.

`images/<first 2 of sha256>/<sha256>` below the root holds the bytes as fetched, and a file beside it the JPEG that the
models read. What is known of images and URLs is in `history.py`.
"""

from __future__ import annotations

from pathlib import Path

from upath import UPath

from labeling_assets.errors import ConfigurationError, ImageUnavailableError, ServiceUnavailableError
from labeling_assets.services.day_tables import is_local
from labeling_assets.services.images.decoding import MODEL_JPEG_VERSION
from labeling_assets.services.whole_files import write_whole

FOLDER = "images"
_DRIVERS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # protocol to extra of this package


def original_path(sha256: str) -> str:
    """Path of the bytes as fetched, relative to the root."""
    return f"{FOLDER}/{sha256[:2]}/{sha256}"


def model_jpeg_path(sha256: str) -> str:
    """Path of the JPEG that the models read, relative to the root."""
    return f"{original_path(sha256)}.{MODEL_JPEG_VERSION}.jpg"


def open_root(root: str) -> UPath:
    """The root as a path, with its driver loaded.

    Raises:
        ConfigurationError: The protocol is unknown, or its driver is not installed.
    """
    try:
        path = UPath(root)
        _ = path.fs
    except ImportError as error:
        protocol = root.partition("://")[0]
        extra = _DRIVERS.get(protocol)
        remedy = f"Run: pip install 'labeling-assets[{extra}]'" if extra else f"{error}."
        raise ConfigurationError(f"LABELING_STORAGE: the driver of {protocol}:// is not installed.", remedy) from error
    except ValueError as error:
        raise ConfigurationError(
            f"LABELING_STORAGE: {error}.", "Give a folder, s3://bucket/folder or gs://bucket/folder."
        ) from error
    return path


class ImageFiles:
    """Files below one root. Thread-safe, and safe with other processes: a file is there in full or not at all.

    Args:
        root: A folder, `s3://…`, `gs://…`, or `memory://…`; credentials come from the environment of the driver.

    Raises:
        ConfigurationError: The protocol is unknown, or its driver is not installed.
    """

    def __init__(self, root: str) -> None:
        opened = open_root(root)
        # A local folder is used directly, since to build a path of `upath` costs more than to look a file up.
        self._root: Path | UPath = Path(opened.path) if is_local(opened) else opened

    def has(self, path: str, size_bytes: int | None = None) -> bool:
        """Whether a file is there, with exactly that size if one is given.

        Raises:
            ServiceUnavailableError: The storage cannot be read.
        """
        try:
            found_bytes = (self._root / path).stat().st_size
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unusable("read", error) from error
        return size_bytes is None or found_bytes == size_bytes

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            ImageUnavailableError: The file is not there.
            ServiceUnavailableError: The storage cannot be read.
        """
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError as error:
            raise ImageUnavailableError(
                f"The image store has no file {path}.", "Materialize product_images of the day again."
            ) from error
        except OSError as error:
            raise _unusable("read", error) from error

    def write(self, path: str, content: bytes) -> None:
        """Write a file so that readers see none or all of it, also after kill -9.

        Raises:
            ServiceUnavailableError: The storage cannot be written.
        """
        try:
            write_whole(self._root / path, content)
        except OSError as error:
            raise _unusable("written", error) from error


def _unusable(verb: str, error: OSError) -> ServiceUnavailableError:
    reason = error.strerror or str(error) or type(error).__name__
    return ServiceUnavailableError(f"The image store cannot be {verb}: {reason}.", "Check LABELING_STORAGE.")
