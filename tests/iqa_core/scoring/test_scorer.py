"""Margins and scores as formulas, batches that fail, and :class:`Scorer` from a file to a table."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import iqa_core
from iqa_core import Scorer
from iqa_core.clip.load import load_towers
from iqa_core.errors import ImageError, InputError, Status
from iqa_core.prompts.pairs import PromptPair, load_pairs
from iqa_core.scoring.encode import encode_images
from iqa_core.scoring.features import PromptFeatures, encode_prompts
from iqa_core.scoring.margins import image_scores, margins, pair_scores


@pytest.fixture(scope="module")
def towers():
    return load_towers("tiny")


@pytest.fixture(scope="module")
def scorer():
    return Scorer("tiny", "attributes")


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    """Random vectors of length 1."""
    values = np.random.default_rng(seed).normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def prompts(pairs: int, width: int, scale: float) -> PromptFeatures:
    names = tuple(f"pair{i}" for i in range(pairs))
    return PromptFeatures(names, unit(pairs, 2, width, seed=1), scale, "digest")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# Formulas -----------------------------------------------------------------------------------------


def test_a_margin_by_hand():
    features = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    texts = np.array([[[1, 0], [0, 1]]], dtype=np.float32)
    result = margins(features, PromptFeatures(("a",), texts, 5.0, ""))
    np.testing.assert_allclose(result, [[5 * (1 - 0)], [5 * (0.6 - 0.8)]], rtol=1e-6)
    assert result.dtype == np.float32


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_margins_are_the_formula(scale):
    features, table = unit(7, 32), prompts(3, 32, scale)
    result = margins(features, table)
    for i in range(7):
        for p in range(3):
            cosines = [float(features[i] @ table.features[p, side]) for side in (0, 1)]
            assert result[i, p] == pytest.approx(scale * (cosines[0] - cosines[1]), abs=2e-5)


def test_margins_of_half_precision_features_are_computed_in_full():
    features, table = unit(7, 32).astype(np.float16), prompts(3, 32, 100)
    np.testing.assert_array_equal(
        margins(features, table), margins(features.astype(np.float32), table)
    )


def test_margins_of_nearly_equal_prompts_keep_their_digits():
    """Two logits of about 100 that differ in the sixth digit: float32 would round them first."""
    near = np.array([[[1, 1e-4], [1, 0]]], dtype=np.float32)
    result = margins(np.array([[1, 0.5]], dtype=np.float32), PromptFeatures(("a",), near, 100, ""))
    assert result[0, 0] == pytest.approx(100 * 1e-4 * 0.5, rel=1e-6)


def test_a_pair_score_is_the_two_way_softmax():
    features, table = unit(50, 8), prompts(4, 8, 20)
    logits = 20 * np.einsum("nd,psd->nps", features.astype(np.float64), table.features)
    softmax = np.exp(logits[..., 0]) / np.exp(logits).sum(axis=-1)
    assert np.ptp(softmax) > 0.9
    np.testing.assert_allclose(pair_scores(margins(features, table)), softmax, rtol=0, atol=1e-6)


def test_the_sigmoid_of_single_margins():
    scores = pair_scores(np.array([[0, math.log(3), -math.log(3), 1000, -1000, np.nan]]))
    np.testing.assert_allclose(scores, [[1 / 2, 3 / 4, 1 / 4, 1, 0, np.nan]], rtol=1e-6)
    assert scores.dtype == np.float32


def test_an_images_score_is_the_mean_over_pairs():
    scores = np.array([[0.1, 0.2, 0.6], [0, 0, 0.3], [1, np.nan, 1]], dtype=np.float32)
    result = image_scores(scores)
    np.testing.assert_allclose(result, [(0.1 + 0.2 + 0.6) / 3, 0.3 / 3, np.nan], rtol=1e-6)
    assert result.dtype == np.float32


# Prompts ------------------------------------------------------------------------------------------


def test_prompts_are_encoded_by_pair_and_side(towers):
    pairs = load_pairs("pyiqa")
    encoded = encode_prompts(towers, pairs)
    assert encoded.names == tuple(pair.name for pair in pairs)
    assert encoded.features.shape == (5, 2, 128)
    assert encoded.features.dtype == np.float32
    for i, pair in enumerate(pairs):
        for side, text in enumerate((pair.positive, pair.negative)):
            alone = towers.text.encode([text])[0].numpy()
            np.testing.assert_allclose(encoded.features[i, side], alone, rtol=0, atol=1e-6)


def test_the_scale_is_the_models_own_unless_given(towers):
    pairs = load_pairs("clip-iqa")
    assert encode_prompts(towers, pairs).logit_scale == towers.logit_scale
    assert encode_prompts(towers, pairs, 1).logit_scale == 1


@pytest.mark.parametrize("scale", [0, -1, math.inf, math.nan])
def test_a_scale_that_is_none(towers, scale):
    with pytest.raises(InputError, match=f"--logit-scale {scale} must be a finite number above 0"):
        encode_prompts(towers, load_pairs("clip-iqa"), scale)


def test_pairs_that_can_not_be_told_apart(towers):
    pair = PromptPair("good", "a good photo", "a bad photo")
    with pytest.raises(InputError, match=r"prompt pairs are named \[\]: give one or more"):
        encode_prompts(towers, [])
    with pytest.raises(
        InputError, match=r"are named \['good', 'good'\]: give .* with distinct names"
    ):
        encode_prompts(towers, [pair, replace(pair, positive="a fine photo")])


def test_the_digest_changes_with_all_that_changes_a_score(towers):
    pair = PromptPair("good", "a good photo", "a bad photo")
    digests = [
        encode_prompts(towers, [pair]).digest,
        encode_prompts(towers, [replace(pair, name="fine")]).digest,
        encode_prompts(towers, [replace(pair, positive="a fine photo")]).digest,
        encode_prompts(towers, [replace(pair, negative="a poor photo")]).digest,
        encode_prompts(towers, [pair], 1).digest,
        encode_prompts(towers, [pair, replace(pair, name="fine")]).digest,
        encode_prompts(
            replace(towers, image=SimpleNamespace(digest="other weights")), [pair]
        ).digest,
        encode_prompts(replace(towers, quick_gelu=True), [pair]).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert encode_prompts(towers, [pair]).digest == digests[0]


# Batches ------------------------------------------------------------------------------------------


class Encoder:
    """Encodes an image as its mean colour, keeps the shapes of its batches, and fails on purpose.

    A batch that holds a pixel of value 255 raises; a pixel of value 254 makes its image's NaN.
    """

    def __init__(self, most: int | None = None) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.most = most

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        self.batches.append(pixels.shape[:3])
        if (pixels == 255).any():
            raise RuntimeError("a bad\n  pixel")
        if self.most is not None and len(pixels) > self.most:
            raise torch.cuda.OutOfMemoryError("out of memory")
        means = torch.from_numpy(pixels.mean(axis=(1, 2), dtype=np.float32))
        means[torch.from_numpy((pixels == 254).any(axis=(1, 2, 3)))] = torch.nan
        return means


def flat(value: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_mixed_sizes_come_back_in_their_order():
    images = [flat(i, 4 + i % 3, 8 - i % 2) for i in range(12)]
    encode = Encoder()
    features, errors = encode_images(encode, images, 3)
    np.testing.assert_array_equal(features, [[i, i, i] for i in range(12)])
    assert errors == {}
    sizes = [batch[1:] for batch in encode.batches]
    assert len(sizes) == len(set(sizes)) == 6
    assert features.dtype == np.float32


@pytest.mark.parametrize(
    ("budget", "batches"),
    [(160, [10]), (159, [9, 1]), (48, [3, 3, 3, 1]), (16, [1] * 10), (1, [1] * 10)],
)
def test_a_batch_stays_within_the_pixel_budget(budget, batches):
    encode = Encoder()
    features, _ = encode_images(encode, [flat(i) for i in range(10)], 3, pixel_budget=budget)
    assert [batch[0] for batch in encode.batches] == batches
    np.testing.assert_array_equal(features[:, 0], range(10))


@pytest.mark.parametrize("bad", [[0], [5], [9], [2, 3], [0, 9], list(range(10))])
def test_an_image_that_fails_costs_only_itself(bad):
    images = [flat(255 if i in bad else i) for i in range(10)]
    features, errors = encode_images(Encoder(), images, 3)
    assert errors == dict.fromkeys(bad, "RuntimeError: a bad pixel")
    good = [i for i in range(10) if i not in bad]
    np.testing.assert_array_equal(features[good, 0], good)
    assert np.isnan(features[bad]).all()


def test_one_bad_image_of_many_is_found_by_halving():
    encode = Encoder()
    encode_images(encode, [flat(255 if i == 700 else 0) for i in range(1024)], 3)
    assert len(encode.batches) == 1 + 2 * 10


def test_features_that_are_not_finite_are_an_error():
    features, errors = encode_images(Encoder(), [flat(1), flat(254), flat(3)], 3)
    assert errors == {1: "the image tower returned features that are not finite"}
    assert np.isnan(features[1]).all()
    np.testing.assert_array_equal(features[[0, 2], 0], [1, 3])


def test_a_device_that_runs_out_of_memory_gets_smaller_batches():
    encode = Encoder(most=3)
    features, errors = encode_images(encode, [flat(i) for i in range(8)], 3)
    assert errors == {}
    np.testing.assert_array_equal(features[:, 0], range(8))
    assert [batch[0] for batch in encode.batches] == [8, 4, 2, 2, 4, 2, 2]


def test_no_images():
    features, errors = encode_images(Encoder(), [], 3)
    assert features.shape == (0, 3)
    assert errors == {}


# Scorer -------------------------------------------------------------------------------------------


def test_scores_follow_from_features_and_prompts(scorer, photos):
    result = scorer.score(list(photos.values()))
    names = tuple(pair.name for pair in load_pairs("attributes"))
    assert result.names == names
    assert result.score.shape == (len(photos),)
    assert result.scores.shape == result.margins.shape == (len(photos), len(names))
    np.testing.assert_allclose(np.linalg.norm(result.features, axis=-1), 1, rtol=1e-6)
    texts = scorer.prompts.features.astype(np.float64)
    cosines = np.einsum("nd,psd->nps", result.features, texts)
    scale = scorer.prompts.logit_scale
    expected = scale * (cosines[..., 0] - cosines[..., 1])
    np.testing.assert_allclose(result.margins, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.scores, 1 / (1 + np.exp(-result.margins)), atol=1e-6)
    np.testing.assert_allclose(result.score, result.scores.mean(axis=1), atol=1e-6)
    assert result.errors == {}


def test_one_image_in_each_form_scores_the_same(scorer, photos, tmp_path):
    pixels = photos["chelsea"]
    data = png(pixels)
    path = tmp_path / "chelsea.png"
    path.write_bytes(data)
    forms = [
        path,
        str(path),
        data,
        Image.open(path),
        Image.fromarray(pixels),
        pixels,
    ]
    expected = scorer.score(pixels)
    assert expected.score.shape == (1,)
    for form in forms:
        np.testing.assert_array_equal(scorer.score(form).scores, expected.scores)
    np.testing.assert_allclose(
        scorer.score(forms).scores, np.tile(expected.scores, (len(forms), 1)), rtol=0, atol=1e-5
    )
    assert scorer.score((pixels, data)).score.shape == (2,)


def test_a_grey_array_scores_as_its_colour_image(scorer, photos):
    grey = photos["chelsea"][..., 0]
    colour = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(scorer.score(grey).scores, scorer.score(colour).scores)


def test_exact_decoding_scores_as_open_clip_does(photos):
    """By open_clip alone: its transform, both of its encoders, its scale, its softmax."""
    weights = Path(iqa_core.__file__).parent / "weights" / "tiny.safetensors"
    clip, _, transform = open_clip.create_model_and_transforms("tiny", str(weights))
    clip.eval()
    tokens = open_clip.get_tokenizer("tiny")(["Good photo.", "Bad photo."])
    scorer = Scorer("tiny", "clip-iqa", decode="exact")
    for photo in (photos["chelsea"], photos["flower"][:, :200]):
        image = Image.fromarray(photo)
        with torch.no_grad():
            logits, _ = clip.get_logits(transform(image)[None], tokens)
        expected = logits.softmax(dim=-1)[0, 0].item()
        for form in (image, photo, png(photo)):
            assert scorer.score(form).score[0] == pytest.approx(expected, abs=1e-5)


def test_the_ways_to_decode_are_close_but_not_the_same(photos):
    images = [png(photo) for photo in (photos["astronaut"], photos["rocket"])]
    exact, fast = (Scorer("tiny", decode=decode).score(images) for decode in ("exact", "fast"))
    assert 0 < np.abs(exact.score - fast.score).max() < 0.05


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_scores_do_not_depend_on_batch_size_or_order(resolution, photos):
    crops = [photo[40:168, 60:188] for photo in photos.values()]
    crops.insert(3, photos["rocket"][:100, :150])
    scorer = Scorer("tiny", "attributes", resolution=resolution, batch_size=1)
    alone = scorer.score(crops).scores
    for size in (2, 5, 32):
        scorer.batch_size = size
        np.testing.assert_allclose(scorer.score(crops).scores, alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scorer.score(crops[::-1]).scores[::-1], alone, rtol=0, atol=1e-5)
    assert np.ptp(alone, axis=0).max() > 0.1


def test_native_resolution_keeps_the_size(photos):
    model, native = (
        Scorer("tiny", "clip-iqa", resolution=resolution) for resolution in ("model", "native")
    )
    photo = photos["coffee"]
    whole = native.tower.encode(photo[None]).numpy()
    np.testing.assert_allclose(native.score(photo).features, whole, rtol=0, atol=1e-6)
    assert np.abs(model.score(photo).features - whole).max() > 1e-2


def test_pairs_as_a_name_a_file_or_pairs(photos, tmp_path):
    path = tmp_path / "pairs.toml"
    path.write_text('[[pair]]\nname = "q"\npositive = "Good photo."\nnegative = "Bad photo."\n')
    expected = Scorer("tiny", "clip-iqa").score(photos["china"])
    pair = PromptPair("q", "Good photo.", "Bad photo.")
    for pairs in (path, str(path), [pair], (pair,)):
        result = Scorer("tiny", pairs).score(photos["china"])
        assert result.names == ("q",)
        np.testing.assert_array_equal(result.scores, expected.scores)


def test_swapped_prompts_give_the_complement(photos):
    pairs = [PromptPair("a", "a sharp photo", "a blurry photo"),
             PromptPair("b", "a blurry photo", "a sharp photo")]  # fmt: skip
    scores = Scorer("tiny", pairs).score(list(photos.values())).scores
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=0, atol=1e-6)


def test_no_images_give_empty_scores(scorer):
    result = scorer.score([])
    assert result.score.shape == (0,)
    assert result.scores.shape == (0, 16)
    assert len(result.to_pandas()) == 0


def test_a_frame_holds_the_scores(scorer, photos):
    result = scorer.score(list(photos.values()))
    frame = result.to_pandas()
    assert list(frame) == ["score", *(f"scores.{name}" for name in result.names)]
    np.testing.assert_array_equal(frame["score"], result.score)
    np.testing.assert_array_equal(frame.drop(columns="score"), result.scores)


# Failures -----------------------------------------------------------------------------------------


@pytest.fixture
def mixed(photos, tmp_path):
    """Ten images of which every other one can't be scored, and why not."""
    photo = photos["chelsea"]
    return [photo, b"", photo, b"GIF89a", photo, tmp_path / "missing.png", photo, tmp_path,
            photo, png(photo)[:9000], Image.new("RGB", (5, 0))], {
        1: Status.EMPTY,
        3: Status.DECODE_ERROR,
        5: Status.NOT_FOUND,
        7: Status.UNSUPPORTED,
        9: Status.DECODE_ERROR,
        10: Status.EMPTY,
    }  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_nan_leaves_a_gap_and_says_why(batch_size, mixed, photos):
    images, expected = mixed
    scorer = Scorer("tiny", "pyiqa", batch_size=batch_size)
    result = scorer.score(images, on_error="nan")
    assert {position: error.status for position, error in result.errors.items()} == expected
    assert all(error.message for error in result.errors.values())
    for numbers in (result.score, result.scores, result.margins, result.features):
        bad = np.isnan(numbers).reshape(len(images), -1)
        assert bad.all(axis=1).nonzero()[0].tolist() == list(expected)
        assert bad.any(axis=1).nonzero()[0].tolist() == list(expected)
    alone = scorer.score(photos["chelsea"]).score[0]
    np.testing.assert_allclose(result.score[::2][:5], alone, rtol=0, atol=1e-5)
    assert result.to_pandas()["score"].isna().sum() == len(expected)


def test_raise_names_the_first_bad_image(mixed, scorer, tmp_path):
    images, _ = mixed
    with pytest.raises(ImageError, match=r"^image 1: the file is empty \(zero bytes\)$") as caught:
        scorer.score(images)
    assert caught.value.status == Status.EMPTY
    with pytest.raises(ImageError, match=r"^image 1: .*No such file or directory: .*missing\.png"):
        scorer.score([images[0], tmp_path / "missing.png"])
    with pytest.raises(ImageError, match=r"^FileNotFoundError: .*missing\.png") as caught:
        scorer.score(str(tmp_path / "missing.png"))
    assert caught.value.status == Status.NOT_FOUND


def test_the_position_counts_from_the_first_batch(photos):
    scorer = Scorer("tiny", "clip-iqa", batch_size=2)
    with pytest.raises(ImageError, match=r"^image 3: the image has 0 x 7 pixels"):
        scorer.score([photos["chelsea"]] * 3 + [Image.new("RGB", (0, 7))])


def test_what_the_model_can_not_do_is_a_model_error(photos):
    scorer = Scorer("tiny", "clip-iqa", resolution="native")
    images = [b"", photos["china"], photos["china"][:20]]
    result = scorer.score(images, on_error="nan")
    statuses = {position: error.status for position, error in result.errors.items()}
    assert statuses == {0: Status.EMPTY, 2: Status.MODEL_ERROR}
    assert "20 x 640, but at native resolution this tower needs at least 32" in str(
        result.errors[2]
    )
    assert np.isfinite(result.score).tolist() == [False, True, False]


def test_too_many_pixels(photos):
    scorer = Scorer("tiny", "clip-iqa", max_pixels=10_000)
    for form in (photos["china"], png(photos["china"]), Image.fromarray(photos["china"])):
        with pytest.raises(ImageError, match=r"10[_, ]?000") as caught:
            scorer.score(form)
        assert caught.value.status == Status.TOO_LARGE


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"shape \(8, 8, 3\) and type float32, but must be"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"shape \(2, 8, 8, 3\) .* several images as a list"),
        (
            np.zeros((3, 8, 8), np.uint8),
            r"shape \(3, 8, 8\) and type uint8, but must be \(H, W, 3\)",
        ),
        (np.zeros((8, 8, 4), np.uint8), r"shape \(8, 8, 4\) and type uint8, but must be"),
        (np.zeros(8, np.uint8), r"shape \(8,\)"),
        (3, "an image is a int, but must be a path, bytes, a PIL image or a uint8 array"),
        (None, "an image is a NoneType"),
        ([["a.png"]], "an image is a list"),
    ],
)
def test_something_that_is_no_image(scorer, image, message):
    for on_error in ("raise", "nan"):
        with pytest.raises(InputError, match=message):
            scorer.score(image, on_error=on_error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "tinny"}, "--model 'tinny' is not a model"),
        ({"pairs": "qualty"}, "--pairs 'qualty' is neither a named set"),
        ({"pairs": []}, "give one or more"),
        ({"logit_scale": 0}, "--logit-scale 0 must be"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"precision": "half"}, "--precision 'half' is none of auto, fp32, bf16, fp16"),
        ({"resolution": "full"}, "--resolution 'full' is none of model, native"),
        ({"decode": "quick"}, "'quick'"),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(InputError, match=message):
        Scorer(**options)


# Not-a-number -------------------------------------------------------------------------------------


class Tower:
    """An image tower of another kind: it returns what it was given, for each image the next row."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = [np.array(row, dtype=np.float32) for row in rows]

    def encode(self, pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.rows.pop(0) for _ in pixels]))


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_features_of_an_image_that_no_prompt_can_score(on_error, photos):
    scorer = Scorer("tiny", "clip-iqa")
    good = unit(128).tolist()
    scorer.tower = Tower([good, [0.0] * 128, [3e38] * 128, [math.inf] * 128, good])
    images = [photos["chelsea"]] * 5
    if on_error == "raise":
        with pytest.raises(ImageError, match=r"image 1: .* not of length 1") as caught:
            scorer.score(images)
        assert caught.value.status == Status.MODEL_ERROR
        return
    result = scorer.score(images, on_error="nan")
    assert {place: error.status for place, error in result.errors.items()} == dict.fromkeys(
        (1, 2, 3), Status.MODEL_ERROR
    )
    for values in (result.score, result.scores, result.margins, result.features):
        assert np.isnan(values[1:4]).all()
        assert np.isfinite(values[[0, 4]]).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 2.0])
def test_prompt_features_that_are_no_directions_are_refused(value):
    features = unit(3, 2, 8)
    features[1, 0] = value
    with pytest.raises(
        InputError, match=r"prompt pair 'b' are not finite numbers of length 1: use"
    ):
        PromptFeatures(("a", "b", "c"), features, 100.0, "")


@pytest.mark.parametrize("scale", [math.nan, math.inf, 0.0, -3.0, 2e38])
def test_a_scale_whose_margins_are_not_finite_is_refused(scale):
    with pytest.raises(
        InputError, match=f"the logit scale {re.escape(f'{scale:g}')} must be above 0 and at most"
    ):
        PromptFeatures(("a",), unit(1, 2, 8), scale, "")


def test_the_largest_scale_gives_finite_margins():
    texts = np.array([[[1, 0], [-1, 0]]], dtype=np.float32)
    largest = PromptFeatures(("a",), texts, 1e38, "")
    assert np.isfinite(margins(np.array([[1, 0], [-1, 0]], dtype=np.float32), largest)).all()


def test_a_text_tower_that_returns_nothing_finite_is_refused(towers):
    class Broken:
        def encode(self, texts):
            return torch.full((len(texts), 128), torch.nan)

    with pytest.raises(InputError, match="text features of prompt pair 'quality' are not finite"):
        encode_prompts(replace(towers, load_text=Broken), load_pairs("clip-iqa"))
