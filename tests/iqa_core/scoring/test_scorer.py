""":class:`Scorer` from a file to a table, and images that it can't score."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import iqa_core
from iqa_core import Scorer
from iqa_core.clip.load import load_towers
from iqa_core.errors import ImageError, InputError, Status
from iqa_core.prompts.ensemble import learned_prompts
from iqa_core.prompts.file import load_prompts, save_prompts
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import PromptPair, load_pairs
from iqa_core.scoring.features import PromptFeatures
from iqa_core.scoring.margins import score_features


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
        ({"model": "tinny"}, "model 'tinny' is not a model"),
        ({"pairs": "qualty"}, "pairs 'qualty' is neither a named set"),
        ({"pairs": []}, "give one or more"),
        ({"logit_scale": 0}, r"logit_scale \(0\) must be"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"precision": "half"}, r"precision \('half'\) must be one of auto, fp32, bf16, fp16: "),
        ({"resolution": "full"}, r"resolution \('full'\) must be one of model, native: "),
        ({"decode": "quick"}, "'quick'"),
        (
            {"pairs": [("a", "b", "c")]},
            r"a prompt pair is \('a', 'b', 'c'\), but must be a PromptPair",
        ),
        ({"pairs": "clip-iqa", "prompts": "p.safetensors"}, "pairs and prompts are both given"),
        ({"device": "quantum"}, r"device \('quantum'\) must be a device that torch has here \("),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(InputError, match=message):
        Scorer(**options)


def test_another_way_to_treat_errors(scorer, photos):
    with pytest.raises(InputError, match=r"on_error \('ignore'\) must be one of raise, nan"):
        scorer.score(list(photos.values()), on_error="ignore")


def test_learned_prompts(towers, photos, tmp_path):
    learner = PromptLearner(towers.text, load_pairs("clip-iqa"), context_length=4, seed=1)
    save_prompts(tmp_path / "p.safetensors", learned_prompts(learner, towers))
    scorer = Scorer("tiny", prompts=tmp_path / "p.safetensors")
    found = scorer.score(list(photos.values()))
    prompts = load_prompts(tmp_path / "p.safetensors").features
    np.testing.assert_array_equal(found.score, score_features(found.features, prompts)[2])
    assert found.names == ("quality",)
    assert (
        Scorer("tiny", prompts=tmp_path / "p.safetensors", logit_scale=1).prompts.logit_scale == 1
    )
    others = replace(learned_prompts(learner, towers), weights_digest="0" * 64)
    save_prompts(tmp_path / "p.safetensors", others)
    with pytest.raises(InputError, match="the prompts were learned for model tiny"):
        Scorer("tiny", prompts=tmp_path / "p.safetensors")


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
