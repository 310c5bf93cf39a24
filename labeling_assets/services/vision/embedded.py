"""The vision model that needs no download: OCR, colours and a lexicon instead of a language model.

It reads what is printed and concludes from the words; it recognises no objects, so a picture without words gets colours
and little else. Its name says so in every record. The words and their meaning belong in `lexicon.toml`, colours in
`colours.py`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import queue
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from labeling_assets.errors import ConfigurationError, InvalidReplyError, ModelRunnerError
from labeling_assets.products.labels import MAX_ITEM_CHARS, MAX_ITEMS, MAX_SUBJECT_CHARS, MAX_TEXT_CHARS
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS, TrademarkLevel
from labeling_assets.services.vision import VisionReply
from labeling_assets.services.vision.colours import describe_colours
from labeling_assets.services.vision.lexicon import lexicon_bytes, load_lexicon

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NAME = "embedded-ocr-lexicon-v1"
_CODE_VERSION = "1"
"""Part of the digest. Raise it with any change of code that can change a reply; the lexicon is in the digest itself."""

_PACKAGES = ("rapidocr", "onnxruntime")
_REMEDY = "Install it: pip install 'labeling-assets[embedded]'"
_MAX_DEFAULT_SLOTS = 8
"""An engine takes about 150 MB, and a container may see more cores than it is given."""

_OCR_PARAMETERS: dict[str, Any] = {
    "Global.log_level": "critical",
    "Global.use_cls": False,  # prints are not upside down
    "Global.text_score": 0.7,  # words score above 0.84; drawings taken for letters mostly below 0.65
    # On 190 product photos of 512 px, 384 reads 379 of 380 lines as 512 does, in two thirds of the time.
    "Det.limit_side_len": 384,
    "Det.limit_type": "max",
    # One line at a time, unpadded: a batch is padded to its longest line, which costs a third more on a CPU.
    "Rec.rec_batch_num": 1,
    "Rec.rec_img_shape": [3, 48, 96],
    # Slots are the unit of parallel work; more threads in one session only contend with them.
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    "EngineConfig.onnxruntime.enable_cpu_mem_arena": True,
}
_MODEL_FILES = {"Det.model_path": "PP-OCRv6_det_small.onnx", "Rec.model_path": "PP-OCRv6_rec_small.onnx"}

_SEVERITY = get_args(TrademarkLevel)
"""From `No TM` to `Direct TM`."""

_TYPOGRAPHY_SHARE = 0.10
_MINIMALIST_EDGE_SHARE = 0.02
_MAX_COMPRESSION_RATIO = 3.0


@dataclass(frozen=True)
class TextLine:
    """One line of text as read.

    Attributes:
        text: The words, as the OCR model reads them.
        share: Area of its box as a part of the picture's, 0 to 1.
    """

    text: str
    share: float


class EmbeddedVisionModel:
    """Labels a picture by OCR, colours and a lexicon; implements `VisionModel`.

    Deterministic: the same bytes give the same labels. Prompt and schema are not read: the reply always has the fifteen
    label fields. `product_type` is given only where words name it.

    Args:
        slots: Pictures worked on at once; default: the number of cores, at most 8.
    """

    def __init__(self, slots: int | None = None) -> None:
        self._slots = slots or min(os.cpu_count() or 1, _MAX_DEFAULT_SLOTS)
        self._permits = threading.BoundedSemaphore(self._slots)
        self._idle_engines: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @property
    def name(self) -> str:
        """`embedded-ocr-lexicon-v1`."""
        return NAME

    @functools.cached_property
    def digest(self) -> str:
        """sha256 over lexicon, code version, OCR parameters and the versions of the packages, hex.

        Raises:
            ConfigurationError: A package of the extra `embedded` is missing.
        """
        try:
            versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
        except importlib.metadata.PackageNotFoundError as error:
            raise ConfigurationError(f"The embedded vision model needs the package {error.name}.", _REMEDY) from error
        decisive = json.dumps([_CODE_VERSION, _OCR_PARAMETERS, _MODEL_FILES, versions], sort_keys=True)
        return hashlib.sha256(decisive.encode() + lexicon_bytes()).hexdigest()

    @property
    def slots(self) -> int:
        """Pictures worked on at once."""
        return self._slots

    def check(self) -> None:
        """Make sure that the OCR engine and its model files are installed.

        Raises:
            ConfigurationError: They are not; the remedy is the command that installs them.
        """
        for module in ("rapidocr", "onnxruntime", "cv2"):
            if importlib.util.find_spec(module) is None:
                raise ConfigurationError(f"The embedded vision model needs the module {module}.", _REMEDY)
        for path in _model_paths().values():
            if not Path(path).is_file():
                message = f"The OCR model {path} is missing."
                raise ConfigurationError(message, "Install rapidocr anew: pip install --force-reinstall rapidocr")

    def ask(self, image_jpeg: bytes, prompt: str, schema: Mapping[str, Any]) -> VisionReply:  # noqa: ARG002 - protocol
        """The labels of one picture as JSON; prompt and schema are not read.

        Raises:
            InvalidReplyError: The bytes are not a picture; asking again cannot help.
            ModelRunnerError: The OCR engine broke on this picture.
            ConfigurationError: The extra `embedded` is not installed.
        """
        started = time.perf_counter()
        rgb = _decode(image_jpeg)
        labels = describe_picture(self._read(rgb), rgb)
        text = json.dumps(labels, ensure_ascii=False)
        seconds = time.perf_counter() - started
        return VisionReply(text=text, is_cut_off=False, prompt_tokens=0, output_tokens=0, seconds=seconds)

    def close(self) -> None:
        """Release the idle engines; a later `ask` starts new ones."""
        while True:
            try:
                self._idle_engines.get_nowait()
            except queue.Empty:
                return

    @contextmanager
    def _engine(self) -> Iterator[Any]:
        """An engine that nobody else uses: RapidOCR keeps the picture's state in its objects."""
        with self._permits:
            try:
                engine = self._idle_engines.get_nowait()
            except queue.Empty:
                engine = _start_engine()
            try:
                yield engine
            finally:
                self._idle_engines.put(engine)

    def _read(self, rgb: npt.NDArray[np.uint8]) -> list[TextLine]:
        """The lines of text in reading order."""
        import numpy as np

        with self._engine() as engine:
            try:
                result = engine(np.ascontiguousarray(rgb[:, :, ::-1]))
            except Exception as error:  # RapidOCR declares no exceptions
                raise ModelRunnerError(f"The OCR engine broke: {type(error).__name__}: {error}") from error
        if result.txts is None:
            return []
        area = rgb.shape[0] * rgb.shape[1]
        return [
            TextLine(text.strip(), _polygon_area(box) / area)
            for text, box in zip(result.txts, result.boxes, strict=True)
            if any(char.isalnum() for char in text)
        ]


def describe_picture(lines: Sequence[TextLine], rgb: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """The fifteen label fields of a picture with these lines on it.

    Args:
        lines: Lines of text in reading order.
        rgb: uint8, shape (height, width, 3).
    """
    texts = [line.text.strip() for line in lines if line.text.strip()]
    found = load_lexicon().find(texts)
    colours = describe_colours(rgb)
    styles = _design_style(sum(line.share for line in lines), rgb) + found.pop("design_style", [])
    if not texts:
        found["message_type"] = ["No message"]
    found |= {"color_aesthetic": colours, "design_style": styles}
    labels: dict[str, Any] = {
        field: [value[:MAX_ITEM_CHARS] for value in found.get(field, [])[:MAX_ITEMS]] for field in LABEL_LISTS
    }
    labels["trademark_level"] = max(found.get("trademark_level", []), key=_SEVERITY.index, default=_SEVERITY[0])
    labels["main_subject"] = _cut(" ".join(texts), MAX_SUBJECT_CHARS)
    labels["text"] = _cut("\n".join(texts), MAX_TEXT_CHARS)
    return {field: labels[field] for field in LABEL_FIELDS}


def _design_style(text_share: float, rgb: npt.NDArray[np.uint8]) -> list[str]:
    import cv2

    styles = ["Typography"] if text_share >= _TYPOGRAPHY_SHARE else ["Text and graphic"] if text_share else ["Graphic"]
    edges = cv2.Canny(rgb, 100, 200)
    if float((edges > 0).mean()) < _MINIMALIST_EDGE_SHARE:
        styles.append("Minimalist")
    return styles


def _cut(text: str, max_chars: int) -> str:
    """The first words of a text, at most `max_chars` characters.

    A print all over the product says the same many times; it is cut until it no longer passes for a model that repeats
    itself without end, which `labels.parse_reply` refuses by the same measure.
    """
    text = _first_words(text, max_chars)
    while len(data := text.encode()) > _MAX_COMPRESSION_RATIO * len(zlib.compress(data, 9)):
        text = _first_words(text, len(text) // 2)
    return text


def _first_words(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    words = text[: max_chars + 1].rsplit(None, 1)
    return words[0] if len(words) == 2 else text[:max_chars]


def _decode(image_jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Pixels of the picture, uint8, shape (height, width, 3), RGB."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image_jpeg), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidReplyError(f"The picture for the vision model cannot be decoded: {error}") from error


def _polygon_area(corners: npt.NDArray[Any]) -> float:
    """Area of a polygon, corners of shape (n, 2), by the shoelace formula."""
    x, y = corners[:, 0].astype(float), corners[:, 1].astype(float)
    return abs(float(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x))))) / 2


def _model_paths() -> dict[str, str]:
    """OCR parameter → model file inside the installed rapidocr: with a path given it never downloads."""
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise ConfigurationError("The embedded vision model needs the module rapidocr.", _REMEDY)
    folder = Path(spec.origin).parent / "models"
    return {parameter: str(folder / name) for parameter, name in _MODEL_FILES.items()}


def _start_engine() -> Any:  # noqa: ANN401 - rapidocr has no type information
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise ConfigurationError(f"The embedded vision model cannot start: {error}.", _REMEDY) from error
    return RapidOCR(params={**_OCR_PARAMETERS, **_model_paths()})
