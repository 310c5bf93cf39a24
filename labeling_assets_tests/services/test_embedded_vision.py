"""The embedded vision model on drawn prints, its lexicon and its colours."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labeling_assets.errors import ConfigurationError, InvalidReplyError, ModelRunnerError
from labeling_assets.products.labels import LABEL_SCHEMA, MAX_ITEM_CHARS, ProductLabels, parse_reply
from labeling_assets.products.records import LABEL_LISTS, TrademarkLevel
from labeling_assets.services.vision import embedded
from labeling_assets.services.vision.colours import NAMED_COLOURS, describe_colours
from labeling_assets.services.vision.embedded import EmbeddedVisionModel, TextLine, describe_picture
from labeling_assets.services.vision.lexicon import _UNREADABLE_LETTERS, _words, fold, lexicon_bytes, load_lexicon

WHITE, NAVY, RED = (255, 255, 255), (32, 46, 84), (200, 30, 40)
TABLE = tomllib.loads(lexicon_bytes().decode())
PHRASES = [
    (field, value, phrase.strip())
    for field, values in TABLE["words"].items()
    for value, line in values.items()
    for phrase in line.split(",")
]


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


def found_in(*lines: str) -> dict[str, list[str]]:
    return load_lexicon().find(lines)


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


class TestLexiconTable:
    def test_every_field_is_a_label_field(self):
        assert set(TABLE["words"]) <= {*LABEL_LISTS, "trademark_level"}
        assert set(TABLE["words"]["trademark_level"]) <= set(get_args(TrademarkLevel))

    def test_every_value_fits_a_label(self):
        assert all(len(value) <= MAX_ITEM_CHARS for _, value, _ in PHRASES)

    def test_no_phrase_stands_twice_under_one_value(self):
        assert len(PHRASES) == len(set(PHRASES))

    def test_rules_follow_from_values_that_the_table_has(self):
        for rule in TABLE["implied"]:
            values = {value.strip() for value in rule["values"].split(",")}
            assert values <= set(TABLE["words"][rule["field"]]), rule
            assert set(rule) - {"field", "values"} <= set(LABEL_LISTS)

    def test_every_phrase_is_found_as_written(self):
        lost = [item for item in PHRASES if item[1] not in found_in(item[2].upper()).get(item[0], [])]
        assert lost == []

    def test_a_phrase_is_found_without_the_letters_that_ocr_cannot_read(self):
        for field, value, phrase in PHRASES:
            read = "".join(char for char in _words(phrase) if char not in _UNREADABLE_LETTERS)
            if len(read.replace(" ", "")) >= 5:
                assert value in found_in(read).get(field, []), (field, value, phrase)


class TestLexiconSearch:
    @pytest.mark.parametrize(
        ("lines", "field", "values"),
        [
            (("DOG MOM",), "image_recipient", ["Dog lover"]),
            (("Best mother-in-law",), "image_recipient", ["Mother-in-law"]),
            (("I'd rather be fishing",), "image_recipient", ["Fisherman"]),
            (("B0SS LADY",), "image_recipient", ["Boss"]),
            (("Grandrna",), "image_recipient", ["Grandma"]),
            (("Teacber life",), "image_recipient", ["Teacher"]),
            (("MerryChristmas",), "occasion", ["Christmas"]),
            (("Chrstmas time",), "occasion", ["Christmas"]),
            (("HappyFather’sDay",), "occasion", ["Father's Day"]),
            (("Tt sum vy",), "occasion", ["Tết", "Lunar New Year"]),
            (("Ngày Nhà giáo", "20/11"), "occasion", ["Teacher's Day"]),
            (("Gia đình là số một",), "image_recipient", ["Family"]),
            (("Mom and Dad",), "image_recipient", ["Mom", "Dad"]),
            (("Dad and Mom",), "image_recipient", ["Dad", "Mom"]),
            (("The Dogfather",), "trademark_level", ["TM Resemblance"]),
            (("Est. 2020", "12.06.2024"), "personalization_type", ["Established year", "Custom date", "Custom year"]),
            (("The Miller Family",), "personalization_type", ["Custom name"]),
            (("Mr & Mrs Nguyen",), "personalization_type", ["Custom name"]),
        ],
    )
    def test_words_give_values(self, lines: Sequence[str], field: str, values: list[str]):
        assert found_in(*lines)[field] == values

    @pytest.mark.parametrize(
        ("lines", "field"),
        [
            (("Love me or leave me",), "image_recipient"),
            (("I would rather rest",), "image_recipient"),
            (("The reason is laughter",), "image_recipient"),
            (("20.11.2020",), "occasion"),
            (("Ba ba black sheep",), "image_recipient"),
            (("Let us go",), "trademark_level"),
            (("2020 vision 12345",), "occasion"),
        ],
    )
    def test_other_words_give_nothing(self, lines: Sequence[str], field: str):
        assert field not in found_in(*lines)

    def test_folding_drops_accents_apostrophes_and_look_alikes(self):
        assert fold("Đặng’s  M0THER!") == fold("dangs mother")
        assert fold("2020") == "2020"

    @given(st.lists(st.text(max_size=60), max_size=8))
    def test_any_text_is_searched(self, lines: list[str]):
        for field, values in load_lexicon().find(lines).items():
            assert values
            assert len(values) == len(set(values)), field


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


class TestColours:
    @pytest.mark.parametrize("name", sorted(NAMED_COLOURS))
    def test_a_plain_picture_has_the_name_of_its_colour(self, name: str):
        for shade in NAMED_COLOURS[name]:
            assert describe_colours(np.full((40, 60, 3), shade, np.uint8))[0] == name

    def test_the_background_is_left_out(self):
        picture = np.full((200, 200, 3), (238, 238, 236), np.uint8)
        picture[60:140, 60:140] = RED
        names = describe_colours(picture)
        assert names[0] == "Red"
        assert "White" not in names

    def test_white_inside_a_product_is_kept_on_a_white_background(self):
        picture = np.full((200, 200, 3), 255, np.uint8)
        picture[40:160, 40:160] = NAVY
        picture[60:140, 60:140] = 255
        assert set(describe_colours(picture)[:2]) == {"Navy blue", "White"}

    @pytest.mark.parametrize(
        ("shade", "mood"),
        [
            ((128, 128, 128), "Monochrome"),
            ((250, 205, 215), "Pastel"),
            ((235, 40, 30), "Vibrant"),
            ((24, 38, 85), "Dark"),
            ((120, 75, 40), "Earth tones"),
            ((242, 130, 32), "Warm tones"),
            ((40, 95, 200), "Cool tones"),
        ],
    )
    def test_colours_have_a_mood(self, shade: tuple[int, int, int], mood: str):
        assert mood in describe_colours(np.full((64, 64, 3), shade, np.uint8))

    @given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 5))
    @settings(max_examples=40)
    def test_pictures_of_any_size_and_noise_have_bounded_colours(self, height: int, width: int, seed: int):
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        colours = describe_colours(noise)
        assert len(colours) <= 8
        assert colours == describe_colours(noise)
