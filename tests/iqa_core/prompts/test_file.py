"""The prompt file: what goes in comes out, byte for byte, and nothing else is read."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import safetensors
import safetensors.numpy
import torch

from iqa_core.clip.encoder import Towers
from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.images.decode import decode_image
from iqa_core.prompts.ensemble import PromptEnsemble, learned_prompts
from iqa_core.prompts.file import FORMAT, LearnedPrompts, load_prompts, save_prompts
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS
from iqa_core.scoring.margins import margins, score_features

PAIRS = NAMED_PAIRS["pyiqa"][:2]
TRAINING = {"loss": "listmle", "seed": 3, "lr": 1e-3, "kinds": ["a", "b"], "held_out": None}
METRICS = {"teacher": {"srcc": 0.7}, "student": {"srcc": 0.8}}


@pytest.fixture(scope="module")
def towers() -> Towers:
    return load_towers("tiny")


@pytest.fixture(scope="module")
def learner(towers) -> PromptLearner:
    return PromptLearner(towers.text, PAIRS, context="per-side", position="middle", seed=5)


@pytest.fixture(scope="module")
def prompts(learner, towers) -> LearnedPrompts:
    return learned_prompts(learner, towers, training=TRAINING, metrics=METRICS)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "prompts.safetensors"


def rewrite(path: Path, change=lambda document: None, tensors=None) -> None:
    """Change a saved file's document or tensors."""
    with safetensors.safe_open(path, "np") as file:
        document = json.loads(file.metadata()["iqa_prompts"])
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    change(document)
    safetensors.numpy.save_file(
        {**kept, **(tensors or {})}, path, {"iqa_prompts": json.dumps(document)}
    )


def test_round_trip(path, prompts, towers):
    save_prompts(path, prompts)
    loaded = load_prompts(path, towers)
    for name, value in vars(prompts).items():
        found = getattr(loaded, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found, value)
            assert found.dtype == np.float32
            assert found.flags.writeable
        else:
            assert found == value, name


def test_the_features_are_those_of_the_learner(path, prompts, learner, towers):
    save_prompts(path, prompts)
    features = load_prompts(path).features
    assert features.names == ("good", "sharp")
    assert features.logit_scale == towers.logit_scale
    np.testing.assert_array_equal(features.features, learner(towers.text).detach().numpy())
    images = np.random.default_rng(0).normal(size=(4, 128)).astype(np.float32)
    np.testing.assert_allclose(
        margins(images, features),
        learner.margins(towers.text, torch.from_numpy(images), towers.logit_scale).detach(),
        rtol=1e-4,
        atol=1e-3,
    )


def test_the_context_continues_the_training(path, prompts, learner, towers):
    save_prompts(path, prompts)
    loaded = load_prompts(path)
    again = PromptLearner(
        towers.text,
        loaded.pairs,
        context_length=loaded.context.shape[-2],
        position=loaded.position,
        context=loaded.kind,
    )
    again.load_state_dict({"context": torch.from_numpy(loaded.context[0])})
    assert torch.equal(again(towers.text), learner(towers.text))


def test_the_same_prompts_give_the_same_bytes(tmp_path, prompts, learner, towers):
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths[:4]:
        save_prompts(path, prompts)
    turned = {key: TRAINING[key] for key in reversed(TRAINING)}
    for path in paths[4:]:
        save_prompts(path, learned_prompts(learner, towers, training=turned, metrics=METRICS))
    assert len({path.read_bytes() for path in paths}) == 1


def test_the_metadata_can_be_read_without_this_project(path, prompts):
    save_prompts(path, prompts)
    with safetensors.safe_open(path, "np") as file:
        assert set(file.keys()) == {"context", "features"}
        document = json.loads(file.metadata()["iqa_prompts"])
    assert document["format"] == 1  # what older versions read, as long as nothing needs more
    assert document["tower"] == "tiny"
    assert document["context_length"] == 8
    assert document["pairs"][0] == {
        "name": "good",
        "positive": "Good image",
        "negative": "bad image",
    }
    assert document["metrics"] == METRICS
    assert len(document["nearest_words"]) == 2 * 8


def test_a_file_is_written_whole_and_replaces_the_one_before(path, prompts):
    path.write_bytes(b"before")
    save_prompts(path, prompts)
    load_prompts(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_paths_as_texts_uris_and_in_new_folders(tmp_path, prompts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a.safetensors", "new/b.safetensors", "memory://prompts/c.safetensors"):
        save_prompts(path, prompts)
        assert load_prompts(path).pairs == PAIRS
    assert (tmp_path / "new" / "b.safetensors").is_file()


def test_numbers_that_json_does_not_hold(path, prompts):
    training = {
        "best": float("nan"),
        "steps": np.int64(7),
        "curve": np.array([0.5, np.inf]),
        "where": Path("x"),
        "on": np.bool_(True),
    }
    save_prompts(path, replace(prompts, training=training))
    assert load_prompts(path).training == {
        "best": None,
        "steps": 7,
        "curve": [0.5, None],
        "where": "x",
        "on": True,
    }


def test_the_digest_follows_what_is_scored_with(prompts):
    same = replace(prompts, training={}, metrics={}, nearest_words=[], context=prompts.context * 2)
    assert same.features.digest == prompts.features.digest
    others = [
        replace(prompts, logit_scale=1.0),
        replace(prompts, weights_digest="0"),
        replace(prompts, quick_gelu=not prompts.quick_gelu),
        replace(prompts, pairs=prompts.pairs[::-1]),
        replace(prompts, text_features=-prompts.text_features),
    ]
    digests = {p.features.digest for p in [prompts, *others]}
    assert len(digests) == 1 + len(others)


def test_logit_scale_can_be_given(learner, towers):
    assert learned_prompts(learner, towers, logit_scale=1).logit_scale == 1.0


# Refusals.


def test_other_towers_are_refused(path, prompts, towers):
    save_prompts(path, prompts)
    other = replace(towers, name="RN50/openai", image=SimpleNamespace(digest="f" * 64))
    message = (
        rf"prompts.safetensors: the prompts were learned for model tiny \(weights "
        rf"{towers.digest[:12]}\), but model RN50/openai has the weights ffffffffffff: score with "
        "model tiny, or learn prompts for RN50/openai"
    )
    with pytest.raises(InputError, match=message):
        load_prompts(path, other)


def test_another_activation_is_refused(path, prompts, towers):
    save_prompts(path, prompts)
    with pytest.raises(InputError, match=r"without QuickGELU, but model x runs .* with it"):
        load_prompts(path, replace(towers, name="x", quick_gelu=True))


def test_a_file_that_is_not_there(path):
    for absent in (path, path.parent, "memory://no/p.safetensors"):
        with pytest.raises(InputError, match="there is no such file: check the path"):
            load_prompts(absent)


def test_another_ending_is_refused(path, prompts):
    with pytest.raises(InputError, match=r"prompts.pt must be named \*.safetensors"):
        save_prompts(path.with_suffix(".pt"), prompts)


def test_a_pickle_is_not_opened(tmp_path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    path = tmp_path / "x.safetensors"
    torch.save({"context": torch.zeros(2)}, path)
    torch.save({"context": torch.zeros(2)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    (tmp_path / "bare").write_bytes(pickle.dumps(Harm()))
    for pickled in (path, tmp_path / "old", tmp_path / "bare"):
        with pytest.raises(InputError, match="this is a pickle, which can run code"):
            load_prompts(pickled)
    assert not (tmp_path / "harm").exists()


def test_a_sound_file_may_begin_like_a_pickle(path, prompts):
    """A file begins with its header's length, which may be any number."""
    for length in range(0, 256, 8):
        save_prompts(path, replace(prompts, training={"note": "x" * length}))
        if path.read_bytes().startswith(b"\x80"):
            break
    assert path.read_bytes().startswith(b"\x80")
    assert load_prompts(path).training["note"] == "x" * length


@pytest.mark.parametrize("keep", [0, 5, 100, 5000, -1])
def test_a_file_cut_short(path, prompts, keep):
    save_prompts(path, prompts)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="this is not a whole safetensors file"):
        load_prompts(path)


def test_weights_are_not_prompts(path):
    for metadata in (None, {"format": "pt"}):
        safetensors.numpy.save_file({"x": np.zeros(3)}, path, metadata)
        with pytest.raises(InputError, match="holds no learned prompts"):
            load_prompts(path)


def test_a_newer_format_is_refused(path, prompts):
    save_prompts(path, prompts)
    rewrite(path, lambda document: document.update(format=FORMAT + 1, pairs="something new"))
    with pytest.raises(
        InputError, match="its format is 3, but this version reads up to 2: upgrade"
    ):
        load_prompts(path)


def test_several_contexts_have_a_format_that_older_versions_refuse(path, towers):
    """They refuse a format above 1 by its number, before they look at anything else."""
    both = PromptEnsemble([PromptLearner(towers.text, PAIRS, seed=seed) for seed in range(2)])
    save_prompts(path, learned_prompts(both, towers))
    with safetensors.safe_open(path, "np") as file:
        document = json.loads(file.metadata()["iqa_prompts"])
        assert file.get_tensor("features").shape == (2, 2, 2, 128)
    assert document["format"] == FORMAT == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "new"}, "not as iqa train writes it"),
        ({"pairs": [{"name": "a"}]}, "not as iqa train writes it"),
        ({"pairs": []}, "do not belong to 0 pairs"),
        ({"pairs": [vars(PAIRS[0])] * 2}, "two pairs have the same name"),
        ({"training": 3}, "not as iqa train writes it"),
        ({"logit_scale": "warm"}, "not as iqa train writes it"),
        ({"logit_scale": 0}, "logit scale 0.0 is not"),
        ({"logit_scale": float("nan")}, "logit scale nan is not"),
        ({"logit_scale": float("inf")}, "logit scale inf is not"),
        ({"logit_scale": 1e200}, r"1e\+200 is not a number above 0 and at most 1e\+38"),
        ({"logit_scale": None}, "not as iqa train writes it"),
        ({"position": "back"}, "position 'back' is unknown"),
        ({"kind": "per-pair"}, "context kind 'per-pair' is unknown"),
        ({"kind": "shared"}, r"a context of shape \(2, 8, 128\) is not shared"),
    ],
)
def test_a_damaged_document_is_refused(path, prompts, change, message):
    save_prompts(path, prompts)
    rewrite(path, lambda document: document.update(change))
    with pytest.raises(InputError, match=message):
        load_prompts(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"context": np.zeros((2, 8, 4))}, "not float32"),
        ({"context": np.full((2, 8, 4), np.nan, np.float32)}, "the context is not finite"),
        ({"context": np.full((2, 8, 128), np.inf, np.float32)}, "the context is not finite"),
        ({"features": np.full((2, 2, 128), np.nan, np.float32)}, "features are not finite"),
        ({"features": np.full((2, 2, 128), -np.inf, np.float32)}, "features are not finite"),
        ({"context": np.zeros((3, 8, 4), np.float32)}, "is not per-side"),
        ({"features": np.zeros((3, 2, 128), np.float32)}, "do not belong to 2 pairs"),
        ({"features": np.zeros((2, 2, 128), np.float32)}, "not of length 1"),
        ({"features": np.array(1, np.float32)}, "prompt file"),
    ],
)
def test_damaged_tensors_are_refused(path, prompts, tensors, message):
    save_prompts(path, prompts)
    rewrite(path, tensors=tensors)
    with pytest.raises(InputError, match=message):
        load_prompts(path)


def test_a_missing_field_is_named(path, prompts):
    save_prompts(path, prompts)
    rewrite(path, lambda document: document.pop("weights_digest"))
    with pytest.raises(InputError, match="KeyError: 'weights_digest'"):
        load_prompts(path)


def test_training_that_diverged_is_not_saved(towers):
    learner = PromptLearner(towers.text, PAIRS)
    with torch.no_grad():
        learner.context.fill_(torch.nan)
    with pytest.raises(InputError, match="the context is not finite"):
        learned_prompts(learner, towers)


# Version 0.1.

OLD = Path(__file__).parents[2] / "data" / "v0.1"


def of_version_0_1(run: str) -> pa.Table:
    (part,) = (OLD / run).glob("part-*.parquet")
    return pq.read_table(part)


def assert_scored_as_rescored(features: np.ndarray, towers: Towers, tolerance: float) -> None:
    """All rows at once, as that version scored them."""
    prompts = load_prompts(OLD / "prompts.safetensors", towers).features
    margin, scores, score = score_features(features, prompts)
    old = of_version_0_1("rescored")
    missing = np.isnan(score)
    assert 10 < (~missing).sum() < len(old)
    assert missing.tolist() == [value is None for value in old["score"].to_pylist()]
    np.testing.assert_allclose(
        score[~missing], old["score"].drop_null().to_numpy(), rtol=0, atol=tolerance
    )
    for place, name in enumerate(prompts.names):
        for values, column in ((scores, "scores"), (margin, "margins")):
            found = pc.struct_field(old[column], name).drop_null().to_numpy()
            np.testing.assert_allclose(values[~missing, place], found, rtol=0, atol=tolerance)


def test_a_prompt_file_of_version_0_1_scores_its_features_as_then(towers):
    """Bit for bit: ``rescored`` holds what that version made of ``features`` and the prompt file."""
    rows = of_version_0_1("features")["embedding"].to_pylist()
    features = np.array([np.full(128, np.nan) if row is None else row for row in rows], np.float16)
    assert_scored_as_rescored(features.astype(np.float32), towers, 0)


def test_images_of_version_0_1_score_as_its_prompt_file_did(towers):
    """From the images on: through today's decoder and tower, and float16 as the cache stores it.

    Not bit for bit: a feature's last bits depend on the batch and the processor, and with them on which
    side of a float16 it is rounded to.
    """
    old = of_version_0_1("rescored").select(["manifest_file", "manifest_row", "score"]).to_pylist()
    images = {
        path.name: pq.read_table(path, columns=["image"])["image"].to_pylist()
        for path in (OLD / "manifest").glob("*.parquet")
    }
    features = np.full((len(old), 128), np.nan, dtype=np.float32)
    for place, row in enumerate(old):
        if row["score"] is not None:
            data = images[row["manifest_file"]][row["manifest_row"]]
            data = data["bytes"] if isinstance(data, dict) else data
            pixels = decode_image(data, towers.preprocess, mode="fast").pixels
            features[place] = towers.image.encode(pixels[None])[0].numpy().astype(np.float16)
    assert_scored_as_rescored(features, towers, 5e-5)


def test_a_prompt_file_needs_no_text_tower(path, prompts, towers):
    save_prompts(path, prompts)

    def fail():
        raise AssertionError("the text tower was loaded")

    without = replace(towers, load_text=fail)
    found = load_prompts(path, without).features
    np.testing.assert_array_equal(found.features, prompts.text_features[0])
    assert found.features.shape[-1] == without.image.width
