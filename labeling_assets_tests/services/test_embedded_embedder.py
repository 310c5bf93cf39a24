"""The embedded embedder: the contract of every embedder, and what its hashed words, shapes and colours are good for."""

from __future__ import annotations

import collections
import datetime as dt
import importlib.metadata
import io
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.errors import ConfigurationError, VectorError
from labeling_assets.products.description import describe, embedding_text
from labeling_assets.products.labels import ProductLabels
from labeling_assets.services.embedding import embedded as module
from labeling_assets.services.embedding.embedded import DIMENSION, EmbeddedEmbedder
from labeling_assets.services.embedding.hashed_text import TEXT_DIMENSIONS
from labeling_assets.services.vision.embedded import TextLine, describe_picture
from labeling_assets_tests.services.embedder_contract import EmbedderContract, assert_unit, picture

# Product, its words in a title, and the words printed on it.
PRODUCTS = [
    ("Mug", "Coffee Mug, Father's Day Gift for Dad", "BEST DAD EVER"),
    ("T-shirt", "Funny T-shirt, Father's Day Gift", "I'D RATHER BE FISHING"),
    ("Hoodie", "Dog Hoodie, Birthday Gift", "DOG MOM"),
    ("Ornament", "Ceramic Ornament, Christmas Gift for Family", "Merry Christmas 2025"),
    ("Plaque", "Wooden Plaque, Housewarming Gift", "Home sweet home"),
    ("Blanket", "Fleece Blanket, Gift for Grandma", "World's Greatest Grandma"),
    ("Tote", "Canvas Tote Bag, Teacher Gift", "Teach Love Inspire"),
    ("Tumbler", "Steel Tumbler, Nurses Week Gift", "NURSE LIFE"),
    ("Poster", "Framed Poster, Valentine's Day Gift", "You are my sunshine"),
    ("Key ring", "Acrylic Key Ring, Graduation Gift", "Class of 2024"),
    ("Pillow", "Throw Pillow, Halloween Decor", "Trick or Treat"),
    ("Cap", "Baseball Cap, Retirement Gift for Grandpa", "Reel Cool Grandpa"),
    ("Cốc sứ", "Cốc sứ in chữ - Quà tặng mẹ", "Mẹ là tuyệt nhất"),
    ("Áo thun", "Áo thun in chữ - Quà tặng bố", "Bố là số một"),
    ("Túi vải", "Túi vải quà tặng cô giáo ngày 20/11", "Cảm ơn cô giáo"),
    ("Tranh", "Tranh treo tường trang trí Tết", "Chúc mừng năm mới"),
    ("Gối", "Gối tựa quà sinh nhật", "Sinh nhật vui vẻ"),
    ("Bình", "Bình giữ nhiệt cho người mê cà phê", "Cà phê rồi tính"),
    ("Áo hoodie", "Áo hoodie cặp đôi", "Anh yêu em mãi mãi"),
    ("Móc khóa", "Móc khóa cho người nuôi mèo", "Yêu mèo hơn yêu người"),
]


def told(title: str, words: str) -> str:
    labels = describe_picture([TextLine(words, 0.05)], np.full((32, 32, 3), 255, np.uint8))
    return embedding_text(ProductLabels.model_validate(labels).model_dump() | {"title": title, "description": ""})


def precision(embedder: EmbeddedEmbedder, vectors: np.ndarray, truths: list[ProductLabels]) -> float:
    """Share of the best ten hits that are as asked, in searches for product and recipient, occasion or theme."""
    shares = []
    for field in ("image_recipient", "occasion", "niche_theme"):
        wanted = [(labels.product_type[0], next(iter(getattr(labels, field)), "")) for labels in truths]
        for words, count in collections.Counter(wanted).items():
            if all(words) and count >= 3:
                best = np.argsort(-(vectors @ embedder.embed_query(" for ".join(words))), kind="stable")[
                    : min(10, count)
                ]
                shares.append(np.mean([wanted[position] == words for position in best]))
    return float(np.mean(shares))


@pytest.fixture(scope="module")
def embedder() -> Iterator[EmbeddedEmbedder]:
    embedder = EmbeddedEmbedder()
    yield embedder
    embedder.close()


class TestEmbeddedEmbedder(EmbedderContract):
    pass


class TestTexts:
    @pytest.mark.parametrize(
        ("query", "number"),
        [
            ("mug for dad", 0),
            ("fishing t-shirt", 1),
            ("dogs", 2),
            ("christmas ornament", 3),
            ("housewarming plaque", 4),
            ("blanket for grandma", 5),
            ("teacher tote bag", 6),
            ("gift for nurses", 7),
            ("valentine poster", 8),
            ("graduation 2024", 9),
            ("halloween pillow", 10),
            ("grandpa cap", 11),
            ("cốc sứ tặng mẹ", 12),
            ("ao thun tang bo", 13),
            ("quà 20/11 cho cô giáo", 14),
            ("chuc mung nam moi", 15),
            ("quà sinh nhật", 16),
            ("cà phê", 17),
            ("áo cặp đôi", 18),
            ("móc khóa mèo", 19),
        ],
    )
    def test_a_query_finds_the_product_it_means_first(self, embedder: EmbeddedEmbedder, query: str, number: int):
        stored = embedder.embed_texts([told(title, words) for _, title, words in PRODUCTS])
        scores = stored @ embedder.embed_query(query)
        assert PRODUCTS[int(scores.argmax())] == PRODUCTS[number]

    def test_the_text_of_a_product_is_found_at_least_as_well_as_its_description(self, embedder: EmbeddedEmbedder):
        catalogue = build_catalogue(last_day=dt.date(2026, 3, 15), has_traps=False)
        texts, descriptions, truths = [], [], []
        for row in catalogue.rows:
            labels = ProductLabels.model_validate(catalogue.images[str(row.image)].truth)
            facts = {"title": row.title, "name_store": row.store, "platform": "Website", "id_sanpham": row.product_id}
            descriptions.append(describe(labels, **facts, language="vi"))
            texts.append(embedding_text(labels.model_dump() | facts))
            truths.append(labels)
        by_text, by_description = (
            precision(embedder, embedder.embed_texts(kind), truths) for kind in (texts, descriptions)
        )
        assert by_text >= by_description > 0.7

    def test_case_accents_plural_and_layout_matter_little(self, embedder: EmbeddedEmbedder):
        vectors = embedder.embed_texts(
            ["dog mom", "DOG MOMS", "- **Title:** Dog mom", "cà phê sữa đá", "ca phe sua da", "grill master"]
        )
        similarity = vectors @ vectors.T
        assert similarity[0, 1] > 0.85
        assert similarity[0, 2] > 0.999
        assert similarity[3, 4] > 0.8
        assert similarity[0, 5] < 0.2

    def test_accents_tell_vietnamese_words_apart(self, embedder: EmbeddedEmbedder):
        same, other = embedder.embed_texts(["bà", "bá"]) @ embedder.embed_query("bà")
        assert same > 0.999 > other

    def test_only_the_text_block_is_filled(self, embedder: EmbeddedEmbedder):
        text, image = embedder.embed_texts(["red mug"])[0], embedder.embed_images([picture(1)])[0]
        assert not text[TEXT_DIMENSIONS:].any()
        assert not image[:TEXT_DIMENSIONS].any()
        assert text @ image == 0
        assert "never each other" in str(embedder.model_info()["note"])

    @given(st.text(min_size=1, max_size=300))
    def test_any_text_that_is_not_blank_has_a_unit_vector(self, text: str):
        vectors = EmbeddedEmbedder().embed_texts([text])
        if text.strip():
            assert_unit(vectors, 1, DIMENSION)
        else:
            assert not vectors.any()

    def test_a_lone_surrogate_is_embedded(self, embedder: EmbeddedEmbedder):
        assert_unit(embedder.embed_texts(["mug \ud83d for dad"]), 1, DIMENSION)

    def test_more_texts_than_a_chunk_are_the_same_as_singly(self, embedder: EmbeddedEmbedder):
        texts = [f"mug number {number}" if number % 7 else "" for number in range(600)]
        vectors = embedder.embed_texts(texts)
        for number in (0, 1, 255, 256, 599):
            np.testing.assert_allclose(vectors[number], embedder.embed_query(texts[number]), atol=1e-5)


class TestImages:
    @pytest.mark.parametrize("seed", range(4))
    def test_a_copy_is_very_near_and_another_picture_is_apart(self, embedder: EmbeddedEmbedder, seed: int):
        original, buffer = picture(seed, (512, 512)), io.BytesIO()
        original.save(buffer, "JPEG", quality=50)
        copies = [Image.open(buffer), original.resize((200, 200), Image.Resampling.LANCZOS)]
        vectors = embedder.embed_images([original, original.copy(), *copies, picture(seed + 10, (512, 512))])
        similarity = vectors @ vectors[0]
        np.testing.assert_array_equal(vectors[0], vectors[1])
        assert similarity[2:4].min() > 0.98
        assert similarity[4] < 0.9

    def test_a_colour_that_differs_slightly_is_near(self, embedder: EmbeddedEmbedder):
        flat = [Image.new("RGB", (64, 64), colour) for colour in ((128, 128, 128), (127, 129, 126), (200, 30, 40))]
        vectors = embedder.embed_images(flat)
        assert vectors[0] @ vectors[1] > 0.98
        assert vectors[0] @ vectors[2] < 0.9

    def test_transparency_is_white(self, embedder: EmbeddedEmbedder):
        logo = Image.new("RGBA", (100, 100), (10, 10, 10, 0))
        logo.paste((200, 30, 40, 255), (30, 30, 70, 70))
        on_white = Image.new("RGB", (100, 100), "white")
        on_white.paste((200, 30, 40), (30, 30, 70, 70))
        vectors = embedder.embed_images([logo, on_white])
        assert vectors[0] @ vectors[1] > 0.999

    def test_a_picture_that_cannot_be_read_is_a_vector_error(self, embedder: EmbeddedEmbedder):
        buffer = io.BytesIO()
        picture(0).save(buffer, "JPEG")
        cut_off = Image.open(io.BytesIO(buffer.getvalue()[: len(buffer.getvalue()) // 2]))
        for broken in (cut_off, Image.new("RGB", (0, 10))):
            with pytest.raises(VectorError, match="cannot be read"):
                embedder.embed_images([picture(0), broken])

    @given(width=st.integers(1, 90), height=st.integers(1, 90), seed=st.integers(0, 9))
    @settings(max_examples=40)
    def test_noise_of_any_size_has_a_unit_vector(self, width: int, height: int, seed: int):
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert_unit(EmbeddedEmbedder().embed_images([Image.fromarray(noise)]), 1, DIMENSION)


class TestIdentity:
    def test_vectors_are_the_same_in_another_process(self, embedder: EmbeddedEmbedder):
        code = (
            "from labeling_assets.services.embedding.embedded import EmbeddedEmbedder as E\n"
            "from PIL import Image; e = E(); i = Image.linear_gradient('L')\n"
            "print(e.identity.key, e.embed_query('quà tặng bố').tobytes().hex(), e.embed_images([i]).tobytes().hex())"
        )
        command = [sys.executable, "-c", code]
        key, text, image = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert key == embedder.identity.key
        assert text == embedder.embed_query("quà tặng bố").tobytes().hex()
        assert image == embedder.embed_images([Image.linear_gradient("L")]).tobytes().hex()

    def test_the_revision_follows_the_parameters(self, embedder: EmbeddedEmbedder, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "_SHAPE_WEIGHT", 0.7)
        assert EmbeddedEmbedder().identity.revision != embedder.identity.revision

    def test_it_has_1024_dimensions_and_an_honest_name(self, embedder: EmbeddedEmbedder):
        assert (embedder.identity.name, embedder.identity.dimension) == ("embedded-hash-v1", 1024)
        assert embedder.model_info()["licence"] == "Apache-2.0"

    def test_a_missing_package_is_named_with_its_remedy(self, monkeypatch: pytest.MonkeyPatch):
        def missing(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", missing)
        with pytest.raises(ConfigurationError, match=r"scikit-learn.*pip install 'labeling-assets\[embedded\]'"):
            EmbeddedEmbedder()

    def test_importing_the_module_loads_nothing_heavy(self):
        code = (
            "import sys, labeling_assets.services.embedding.embedded\n"
            "print([name for name in ('sklearn', 'scipy', 'cv2', 'PIL') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
