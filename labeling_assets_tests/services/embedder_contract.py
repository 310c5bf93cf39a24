"""What holds for every embedder: a class of tests to inherit from, with a fixture `embedder` in the subclass."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from labeling_assets.services.embedding import Embedder
from labeling_assets.services.images.decoding import model_image

TEXTS = (
    "Best dad ever mug, a Father's Day gift",
    "Cốc sứ tặng mẹ yêu nhân ngày của mẹ",
    "## Summary\n\n- **Recipient:** Dog lover\n" * 40,
    "クリスマス 🎄 Weihnachten",
    "x",
    "🎁",
    "the",
    "'",
    'quotes " and \\ backslashes\nand `id_sanpham == "x"`',
)
BATCH_TOLERANCE = 1e-5


def picture(seed: int, size: tuple[int, int] = (320, 256)) -> Image.Image:
    """An RGB picture of coloured shapes; another seed gives another picture."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        (left, right), (top, bottom) = (sorted(rng.integers(0, edge, 2).tolist()) for edge in size)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((left, top, right, bottom), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def assert_unit(vectors: np.ndarray, count: int, dimension: int) -> None:
    assert vectors.shape == (count, dimension)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


class EmbedderContract:
    """Tests that every embedder passes.

    The module of a subclass defines the fixture `embedder`, best with scope `module`: an embedder, closed afterwards.
    """

    def test_texts_have_unit_vectors(self, embedder: Embedder):
        assert_unit(embedder.embed_texts(TEXTS), len(TEXTS), embedder.identity.dimension)

    def test_images_have_unit_vectors(self, embedder: Embedder):
        images = [picture(seed) for seed in range(3)]
        assert_unit(embedder.embed_images(images), len(images), embedder.identity.dimension)

    def test_a_query_has_one_unit_vector(self, embedder: Embedder):
        assert_unit(embedder.embed_query("quà tặng bố")[None], 1, embedder.identity.dimension)

    def test_nothing_in_gives_nothing_out(self, embedder: Embedder):
        dimension = embedder.identity.dimension
        for vectors in (embedder.embed_texts([]), embedder.embed_images([])):
            assert vectors.shape == (0, dimension)
            assert vectors.dtype == np.float32

    @pytest.mark.parametrize("blank", ["", " ", "\n\t "])
    def test_a_blank_text_has_the_zero_vector_and_its_neighbours_have_theirs(self, embedder: Embedder, blank: str):
        vectors = embedder.embed_texts([TEXTS[0], blank, TEXTS[1]])
        assert not vectors[1].any()
        assert not embedder.embed_query(blank).any()
        np.testing.assert_allclose(vectors[[0, 2]], embedder.embed_texts(TEXTS[:2]), atol=BATCH_TOLERANCE)

    def test_the_order_of_texts_is_kept(self, embedder: Embedder):
        vectors, reverse = embedder.embed_texts(TEXTS), embedder.embed_texts(TEXTS[::-1])
        np.testing.assert_allclose(vectors, reverse[::-1], atol=BATCH_TOLERANCE)

    def test_the_order_of_images_is_kept(self, embedder: Embedder):
        images = [picture(seed) for seed in range(4)]
        vectors, reverse = embedder.embed_images(images), embedder.embed_images(images[::-1])
        np.testing.assert_allclose(vectors, reverse[::-1], atol=BATCH_TOLERANCE)

    def test_the_size_of_a_batch_of_texts_changes_nothing(self, embedder: Embedder):
        singly = np.concatenate([embedder.embed_texts([text]) for text in TEXTS])
        np.testing.assert_allclose(embedder.embed_texts(TEXTS), singly, atol=BATCH_TOLERANCE)

    def test_the_size_of_a_batch_of_images_changes_nothing(self, embedder: Embedder):
        images = [picture(0), picture(1, (64, 200)), picture(2, (512, 512))]
        singly = np.concatenate([embedder.embed_images([image]) for image in images])
        np.testing.assert_allclose(embedder.embed_images(images), singly, atol=BATCH_TOLERANCE)

    def test_the_same_again_gives_the_same_vectors(self, embedder: Embedder):
        np.testing.assert_array_equal(embedder.embed_texts(TEXTS), embedder.embed_texts(TEXTS))
        np.testing.assert_array_equal(embedder.embed_images([picture(1)]), embedder.embed_images([picture(1)]))

    def test_different_contents_have_different_vectors(self, embedder: Embedder):
        texts = embedder.embed_texts(TEXTS[:4])
        images = embedder.embed_images([picture(seed) for seed in range(4)])
        for vectors in (texts, images):
            similarity = vectors @ vectors.T - np.eye(len(vectors))
            assert similarity.max() < 0.98

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "CMYK", "1", "I;16"])
    def test_an_image_of_any_mode_is_embedded(self, embedder: Embedder, mode: str):
        grey = picture(3).convert("L")
        image = Image.fromarray(np.asarray(grey, np.uint16) * 256) if mode == "I;16" else picture(3).convert(mode)
        assert image.mode == mode
        assert_unit(embedder.embed_images([image]), 1, embedder.identity.dimension)

    def test_an_opaque_alpha_channel_changes_nothing(self, embedder: Embedder):
        vectors = embedder.embed_images([picture(4), picture(4).convert("RGBA")])
        np.testing.assert_allclose(vectors[0], vectors[1], atol=BATCH_TOLERANCE)

    def test_an_image_is_left_as_it_was(self, embedder: Embedder):
        image = picture(5).convert("RGBA")
        before = image.tobytes()
        embedder.embed_images([image])
        assert (image.mode, image.tobytes()) == ("RGBA", before)

    @pytest.mark.parametrize("size", [(1, 1), (2, 400), (28, 28), (1500, 900)])
    def test_an_image_of_any_size_is_embedded(self, embedder: Embedder, size: tuple[int, int]):
        assert_unit(embedder.embed_images([picture(6, size)]), 1, embedder.identity.dimension)

    @pytest.mark.parametrize("colour", ["white", "black", "gray", "red"])
    def test_a_flat_image_has_a_unit_vector(self, embedder: Embedder, colour: str):
        vectors = embedder.embed_images([Image.new("RGB", (100, 80), colour)])
        assert_unit(vectors, 1, embedder.identity.dimension)

    def test_a_smaller_copy_of_an_image_is_near_it(self, embedder: Embedder):
        whole = picture(7, (512, 512))
        vectors = embedder.embed_images([whole, whole.resize((300, 300), Image.Resampling.LANCZOS), picture(8)])
        assert vectors[0] @ vectors[1] > 0.9
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]

    def test_an_image_decoded_no_larger_than_is_needed_has_nearly_the_same_vector(self, embedder: Embedder):
        file = io.BytesIO()
        picture(7, (512, 512)).save(file, "JPEG", quality=90)
        whole, needed = (model_image(file.getvalue(), edge_px) for edge_px in (0, embedder.image_edge_px))
        assert min(needed.size) >= min(embedder.image_edge_px, 512)
        vectors = embedder.embed_images([whole, needed])
        assert vectors[0] @ vectors[1] > 0.99

    def test_the_identity_is_stable_and_the_information_agrees(self, embedder: Embedder):
        info = embedder.model_info()
        assert embedder.identity == embedder.identity
        assert embedder.identity.key.startswith(f"{embedder.identity.name}@")
        assert info["name"] == embedder.identity.name
        assert info["revision"] == embedder.identity.revision
        assert info["dimension"] == embedder.identity.dimension
        assert {"device", "dtype", "licence"} <= set(info)
        assert all(isinstance(value, str | int) for value in info.values())
