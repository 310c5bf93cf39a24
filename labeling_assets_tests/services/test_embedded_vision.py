"""The embedded vision model on drawn prints."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labeling_assets.errors import ConfigurationError, InvalidReplyError, ModelRunnerError
from labeling_assets.products.labels import LABEL_SCHEMA, ProductLabels, parse_reply
from labeling_assets.services.vision import embedded
from labeling_assets.services.vision.embedded import EmbeddedVisionModel, TextLine, describe_picture
from labeling_assets.services.vision.lexicon import lexicon_bytes

WHITE, NAVY, RED = (255, 255, 255), (32, 46, 84), (200, 30, 40)


def print_of(*lines: str, ground: tuple[int, int, int] = WHITE, ink: tuple[int, int, int] = NAVY) -> bytes:
    """A JPEG of 512 x 512 pixels with lines of text, in OpenCV's own font, which has the Vietnamese letters."""
    import cv2

    pixels = np.full((512, 512, 3), ground, np.uint8)
    for index, line in enumerate(lines):
        cv2.putText(pixels, line, (40, 120 + 90 * index), ink, cv2.FontFace("uni"), 48, 400)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, optimize=True, progressive=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model() -> Iterator[EmbeddedVisionModel]:
    model = EmbeddedVisionModel(2)
    yield model
    model.close()


def labels_of(model: EmbeddedVisionModel, image_jpeg: bytes) -> ProductLabels:
    reply = model.ask(image_jpeg, "Label this picture.", LABEL_SCHEMA)
    assert not reply.is_cut_off
    assert (reply.prompt_tokens, reply.output_tokens) == (0, 0)
    assert reply.seconds > 0
    parsed = parse_reply(reply.text)
    assert parsed.step == "direct"
    return parsed.labels


class TestReply:
    def test_an_english_print_is_read_and_understood(self, model: EmbeddedVisionModel):
        labels = labels_of(model, print_of("BEST DAD EVER", "Happy Father's Day", "Est. 2020"))
        assert labels.text == "BEST DAD EVER Happy Father's Day Est. 2020"
        assert labels.main_subject == labels.text
        assert labels.image_recipient == ["Dad"]
        assert labels.occasion == ["Father's Day"]
        assert {"Appreciation", "Greeting"} <= set(labels.message_type)
        assert {"Established year", "Custom year"} <= set(labels.personalization_type)
        assert "Gift" in labels.usage_purpose
        assert labels.trademark_level == "No TM"
        assert labels.product_type == []

    @pytest.mark.parametrize(
        ("lines", "field", "value"),
        [
            (("Chúc mừng", "năm mới"), "occasion", "Tết"),
            (("Mẹ là", "tuyệt nhất"), "image_recipient", "Mom"),
            (("Cảm ơn", "thầy cô"), "image_recipient", "Teacher"),
            (("Sinh nhật", "vui vẻ"), "occasion", "Birthday"),
        ],
    )
    def test_a_vietnamese_print_is_understood_although_letters_are_lost(
        self, model: EmbeddedVisionModel, lines: Sequence[str], field: str, value: str
    ):
        assert value in getattr(labels_of(model, print_of(*lines)), field)

    def test_a_brand_is_a_direct_trademark(self, model: EmbeddedVisionModel):
        assert labels_of(model, print_of("Star Wars", "Dad")).trademark_level == "Direct TM"

    def test_a_picture_without_words_has_colours_and_no_message(self, model: EmbeddedVisionModel):
        labels = labels_of(model, print_of(ground=RED))
        assert (labels.text, labels.main_subject, labels.image_recipient) == ("", "", [])
        assert labels.message_type == ["No message"]
        assert labels.color_aesthetic[0] == "Red"

    @pytest.mark.parametrize("size", [(28, 28), (512, 28), (28, 512), (1024, 700)])
    def test_pictures_of_any_shape_are_answered(self, model: EmbeddedVisionModel, size: tuple[int, int]):
        buffer = io.BytesIO()
        Image.new("L", size, 200).save(buffer, "JPEG")
        assert labels_of(model, buffer.getvalue()).text == ""

    def test_the_same_bytes_give_the_same_reply_in_every_thread_and_instance(self, model: EmbeddedVisionModel):
        pictures = [print_of("DOG MOM"), print_of("Merry Christmas"), print_of("Cà phê", "rồi tính")]
        with ThreadPoolExecutor(2) as pool:
            first = list(pool.map(lambda picture: model.ask(picture, "", {}).text, pictures * 2))
        assert first[:3] == first[3:]
        assert EmbeddedVisionModel(1).ask(pictures[2], "other prompt", {}).text == first[2]

    def test_no_network_is_used(self, monkeypatch: pytest.MonkeyPatch):
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("the network is used")

        monkeypatch.setattr(socket, "socket", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        assert labels_of(EmbeddedVisionModel(1), print_of("DOG MOM")).image_recipient == ["Dog lover"]


class TestBadPictures:
    @pytest.mark.parametrize("content", [b"", b"<html>no picture</html>", b"\xff\xd8\xff\xe0", print_of("DAD")[:900]])
    def test_bytes_that_are_no_picture_are_refused(self, model: EmbeddedVisionModel, content: bytes):
        with pytest.raises(InvalidReplyError, match="cannot be decoded"):
            model.ask(content, "", {})

    @given(position=st.integers(2, 630), garbage=st.binary(min_size=1, max_size=12))
    @settings(max_examples=150)
    def test_a_damaged_picture_is_decoded_or_refused(self, position: int, garbage: bytes):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), RED).save(buffer, "JPEG")
        content = bytearray(buffer.getvalue())
        content[position : position + len(garbage)] = garbage
        try:
            pixels = embedded._decode(bytes(content))
        except InvalidReplyError:
            return
        assert pixels.ndim == 3

    def test_an_engine_that_breaks_concerns_one_picture_and_a_retry_can_help(self):
        def broken(pixels: object) -> None:
            raise RuntimeError("out of memory")

        model = EmbeddedVisionModel(1)
        model._idle_engines.put(broken)
        with pytest.raises(ModelRunnerError, match="out of memory"):
            model.ask(print_of("DAD"), "", {})


class TestEngines:
    def test_more_callers_than_slots_share_the_engines(self, monkeypatch: pytest.MonkeyPatch):
        started, busy, most_busy, lock = [], [], [], threading.Lock()

        class Engine:
            txts = None

            def __call__(self, _pixels: object) -> Engine:
                with lock:
                    busy.append(self)
                    most_busy.append(len(busy))
                with lock:
                    busy.remove(self)
                return self

        monkeypatch.setattr(embedded, "_start_engine", lambda: started.append(Engine()) or started[-1])
        model = EmbeddedVisionModel(2)
        picture = print_of()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: model.ask(picture, "", {}), range(30)))
        assert len(started) <= 2
        assert max(most_busy) <= 2

    def test_a_closed_model_starts_again(self):
        model = EmbeddedVisionModel(1)
        first = labels_of(model, print_of("DOG MOM"))
        model.close()
        assert model._idle_engines.empty()
        assert labels_of(model, print_of("DOG MOM")) == first

    def test_slots_default_to_the_cores(self):
        assert 1 <= EmbeddedVisionModel().slots <= 8
        assert EmbeddedVisionModel(3).slots == 3


class TestIdentity:
    def test_the_name_says_what_it_is(self, model: EmbeddedVisionModel):
        assert model.name == "embedded-ocr-lexicon-v1"

    def test_the_digest_is_stable_and_follows_the_lexicon(
        self, model: EmbeddedVisionModel, monkeypatch: pytest.MonkeyPatch
    ):
        assert len(model.digest) == 64
        assert EmbeddedVisionModel(1).digest == model.digest
        monkeypatch.setattr(embedded, "lexicon_bytes", lambda: lexicon_bytes() + b"# one word more")
        assert EmbeddedVisionModel(1).digest != model.digest

    def test_the_installed_model_passes_its_check(self, model: EmbeddedVisionModel):
        model.check()

    @pytest.mark.parametrize("missing", ["rapidocr", "onnxruntime"])
    def test_a_missing_package_is_named_with_its_remedy(self, missing: str, monkeypatch: pytest.MonkeyPatch):
        find_spec, version = importlib.util.find_spec, importlib.metadata.version

        def find(name: str, package: str | None = None) -> object:
            return None if name == missing else find_spec(name, package)

        def version_of(name: str) -> str:
            if name == missing:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.util, "find_spec", find)
        monkeypatch.setattr(importlib.metadata, "version", version_of)
        with pytest.raises(ConfigurationError, match=rf"{missing}.*pip install 'labeling-assets\[embedded\]'"):
            EmbeddedVisionModel(1).check()
        with pytest.raises(ConfigurationError, match=missing):
            _ = EmbeddedVisionModel(1).digest

    def test_a_missing_ocr_model_is_found_by_the_check(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(embedded, "_MODEL_FILES", {"Det.model_path": "gone.onnx"})
        with pytest.raises(ConfigurationError, match=r"gone\.onnx"):
            EmbeddedVisionModel(1).check()

    def test_importing_the_module_loads_nothing_heavy(self):
        code = (
            "import sys, labeling_assets.services.vision.embedded\n"
            "print([name for name in ('cv2', 'rapidocr', 'onnxruntime', 'numpy', 'PIL') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "cv2" not in done.stdout
        assert "onnxruntime" not in done.stdout


class TestDescription:
    WHITE_PICTURE = np.full((32, 32, 3), 255, np.uint8)

    @given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200), max_size=12))
    def test_any_lines_give_a_valid_label(self, texts: list[str]):
        labels = describe_picture([TextLine(text, 0.05) for text in texts], self.WHITE_PICTURE)
        parse_reply(json.dumps(labels, ensure_ascii=False))

    @pytest.mark.parametrize(
        "texts", [["HO HO HO HO HO HO HO HO HO HO HO HO HO HO HO"], ["Merry Christmas to everybody"] * 30, ["I" * 400]]
    )
    def test_a_print_all_over_is_no_repetitive_reply(self, texts: list[str]):
        labels = describe_picture([TextLine(text, 0.05) for text in texts], self.WHITE_PICTURE)
        assert parse_reply(json.dumps(labels, ensure_ascii=False)).labels.text.startswith(texts[0][:20])

    def test_a_long_text_is_cut_between_words(self):
        words = [f"word{number}" for number in range(200)]
        labels = describe_picture([TextLine(word, 0.001) for word in words], self.WHITE_PICTURE)
        assert labels["text"].split() == words[: len(labels["text"].split())]
        assert labels["main_subject"].split()[-1] in words

    def test_text_that_fills_the_picture_is_typography(self):
        big = describe_picture([TextLine("HELLO", 0.4)], self.WHITE_PICTURE)
        small = describe_picture([TextLine("HELLO", 0.02)], self.WHITE_PICTURE)
        assert big["design_style"][0] == "Typography"
        assert small["design_style"][0] == "Text and graphic"
