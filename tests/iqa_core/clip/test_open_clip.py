"""CLIPs of open_clip: each form of ``--model``, and which activation it gets."""

from __future__ import annotations

import copy
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory, pretrained
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError

ROOT = Path(__file__).parents[3]
PROMPTS = ["a photo", "Good photo.", "a photo of a cat, with compression artifacts", ""]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@torch.no_grad()
def reference_features(clip, pixels: np.ndarray) -> torch.Tensor:
    """Unit features as a user of open_clip computes them, one Pillow image at a time."""
    transform = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    batch = torch.stack([transform(Image.fromarray(image)) for image in pixels])
    return clip.encode_image(batch, normalize=True)


# The embedded model -------------------------------------------------------------------------------


def test_tiny_loads_and_says_what_it_is(tiny):
    assert (tiny.name, tiny.preprocess.size, tiny.quick_gelu) == ("tiny", (224, 224), False)
    assert 1 < tiny.logit_scale <= 100 * (1 + 1e-6)
    assert len(tiny.digest) == 64
    parameters = [*tiny.image.built.parameters(), *tiny.text.parameters()]
    assert not any(parameter.requires_grad for parameter in parameters)
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert not any(
        module.training for module in [*tiny.image.built.modules(), *tiny.text.modules()]
    )


def test_loading_twice_gives_the_same(tiny):
    again = load_towers()
    assert again.digest == tiny.digest
    pixels = noise(2, 224, 224)
    assert torch.equal(again.image.encode(pixels), tiny.image.encode(pixels))


def test_features_have_length_one(tiny):
    image, text = tiny.image.encode(noise(3, 224, 224)), tiny.text.encode(PROMPTS)
    assert image.shape == (3, 128)
    assert text.shape == (len(PROMPTS), 128)
    assert {image.dtype, text.dtype} == {torch.float32}
    torch.testing.assert_close(image.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(len(PROMPTS)))


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state.pt", "checkpoint.pt", "state.safetensors"])
def test_a_file_of_weights(name, files, random_clips):
    towers = load_towers(f"small-vit@{files[name]}")
    clip = random_clips["small-vit"]
    pixels = noise(2, 32, 32)
    torch.testing.assert_close(towers.image.encode(pixels), reference_features(clip, pixels))
    torch.testing.assert_close(
        towers.text.encode(PROMPTS), clip.encode_text(towers.text.tokenize(PROMPTS), normalize=True)
    )
    assert towers.logit_scale == pytest.approx(clip.logit_scale.detach().exp().item())
    assert not towers.quick_gelu


@pytest.mark.parametrize("architecture", ["small-vit", "small-rn"])
@pytest.mark.parametrize("named", ["openai", "{}", "{}-quickgelu"])
def test_an_archive_of_openai(architecture, named, openai_archives, random_clips):
    """Always QuickGELU, whichever way it is named; float16 weights lose nothing in float32."""
    path = openai_archives[f"{architecture}-quickgelu"]
    towers = load_towers(f"{named.format(architecture)}@{path}")
    clip = random_clips[f"{architecture}-quickgelu"]
    assert towers.quick_gelu
    assert {parameter.dtype for parameter in towers.image.built.parameters()} == {torch.float32}
    size = clip.visual.preprocess_cfg["size"]
    assert towers.preprocess.size == (size if isinstance(size, tuple) else (size, size))
    pixels = noise(2, *towers.preprocess.size)
    torch.testing.assert_close(towers.image.encode(pixels), reference_features(clip, pixels))
    torch.testing.assert_close(
        towers.text.encode(PROMPTS), clip.encode_text(towers.text.tokenize(PROMPTS), normalize=True)
    )


def test_the_digest_is_of_the_weights_not_of_the_file(files, tiny):
    same = ["state.pt", "checkpoint.pt", "state.safetensors", "archive.pt"]
    digests = {load_towers(f"small-vit@{files[name]}").digest for name in same}
    assert len(digests) == 1
    assert tiny.digest not in digests


def test_one_changed_weight_changes_the_digest(random_clips, tmp_path):
    state = copy.deepcopy(random_clips["small-vit"].state_dict())
    save_file(state, tmp_path / "a.safetensors")
    state["ln_final.bias"][7] += 2**-10
    save_file(state, tmp_path / "b.safetensors")
    a, b = (load_towers(f"small-vit@{tmp_path}/{name}.safetensors").digest for name in "ab")
    assert a != b


def test_a_path_may_begin_with_the_home_folder(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files["state.pt"].parent))
    assert load_towers("small-vit@~/state.pt").text.context_length == 77


# QuickGELU ----------------------------------------------------------------------------------------


def test_the_two_activations_differ_by_more_than_these_tests_allow(random_clips):
    pixels = noise(2, 32, 32)
    gelu, quick = (
        reference_features(random_clips[name], pixels)
        for name in ("small-vit", "small-vit-quickgelu")
    )
    assert (gelu - quick).abs().max() > 1e-3


def test_a_bare_file_gets_the_architectures_activation(files, random_clips, caplog):
    caplog.set_level(logging.INFO)
    pixels = noise(2, 32, 32)
    path = files["state.pt"]
    towers = load_towers(f"small-vit-quickgelu@{path}")
    assert towers.quick_gelu
    expected = reference_features(random_clips["small-vit-quickgelu"], pixels)
    torch.testing.assert_close(towers.image.encode(pixels), expected)
    assert not caplog.records
    assert not load_towers(f"small-vit@{path}").quick_gelu
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "does not say which activation" in record.getMessage()
    assert f"small-vit-quickgelu@{path}" in record.getMessage()


@pytest.fixture
def tags(files, architectures, monkeypatch):
    """Tags of pretrained weights, as open_clip's table has them, whose files are here already."""
    quick = {"file": str(files["state.safetensors"]), "quick_gelu": True}
    plain = {"file": str(files["state.pt"]), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    for name in ("small-vit", "small-vit-quickgelu"):
        monkeypatch.setitem(pretrained._PRETRAINED, name, {"quick": quick, "plain": plain})


@pytest.mark.parametrize("name", ["small-vit", "small-vit-quickgelu"])
def test_a_tag_trained_with_quickgelu_gets_it(name, tags, random_clips, caplog):
    caplog.set_level(logging.INFO)
    towers = load_towers(f"{name}/quick")
    assert towers.quick_gelu
    pixels = noise(2, 32, 32)
    expected = reference_features(random_clips["small-vit-quickgelu"], pixels)
    torch.testing.assert_close(towers.image.encode(pixels), expected)
    said = [record.getMessage() for record in caplog.records]
    note = "small-vit/quick was trained with QuickGELU: using it"
    assert said == ([note] if name == "small-vit" else [])


def test_a_tag_trained_with_gelu(tags, random_clips):
    towers = load_towers("small-vit/plain")
    assert not towers.quick_gelu
    assert (towers.preprocess.mean, towers.preprocess.std) == ((0.5,) * 3, (0.25,) * 3)
    pixels = noise(2, 32, 32)
    clip = copy.deepcopy(random_clips["small-vit"])
    clip.visual.preprocess_cfg |= {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    torch.testing.assert_close(towers.image.encode(pixels), reference_features(clip, pixels))
    with pytest.raises(InputError, match=r"names QuickGELU, but these .* use small-vit/plain"):
        load_towers("small-vit-quickgelu/plain")


def test_an_architecture_of_one_name_keeps_its_quickgelu(
    files, random_clips, monkeypatch, tmp_path
):
    """As roberta-ViT-B-32: the tag says nothing, and there is no other name to send the user to."""
    (tmp_path / "one-name.json").write_text(
        json.dumps(open_clip.get_model_config("small-vit-quickgelu"))
    )
    open_clip.add_model_config(tmp_path / "one-name.json")
    tags = {"plain": {"file": str(files["state.safetensors"])}}
    monkeypatch.setitem(pretrained._PRETRAINED, "one-name", tags)
    towers = load_towers("one-name/plain")
    assert towers.quick_gelu
    pixels = noise(2, 32, 32)
    expected = reference_features(random_clips["small-vit-quickgelu"], pixels)
    torch.testing.assert_close(towers.image.encode(pixels), expected)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_hub_says_which_activation(quick_gelu, files, random_clips, monkeypatch, tmp_path):
    """Only the download is replaced, by a folder."""
    name = "small-vit-quickgelu" if quick_gelu else "small-vit"
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))

    def download(model_id: str, filename: str | None = None, **_: object) -> str:
        assert model_id == "org/repo"
        return str(tmp_path / filename if filename else files["state.safetensors"])

    monkeypatch.setattr(factory, "download_pretrained_from_hf", download)
    towers = load_towers("hf-hub:org/repo")
    assert towers.quick_gelu is quick_gelu
    pixels = noise(2, 32, 32)
    expected = reference_features(random_clips[name], pixels)
    torch.testing.assert_close(towers.image.encode(pixels), expected)


# What can't be loaded -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("tinny", "'tinny' is not a model that can be loaded: use tiny .*NAME/TAG .*NAME@FILE"),
        ("", "'' is not a model that can be loaded"),
        ("RN50", r"add a tag, such as RN50/openai \(it has openai, yfcc15m, cc12m\)"),
        ("RN51/openai", r"'RN51' is none of the \d+ that open_clip knows: use .* ViT-B-32, RN50"),
        ("rn50/openai", "'rn50' is none of .* such as RN50$"),
        ("RN50/opnai", "tag 'opnai' of model RN50/opnai is unknown: RN50 has openai, yfcc15m"),
        ("tiny/openai", "tag 'openai' of .* is unknown: tiny has no pretrained weights"),
        ("RN51@x.pt", "architecture 'RN51' is none of"),
        ("RN50@missing.pt", r"model RN50@missing\.pt: there is no file missing\.pt: check"),
        ("openai@missing.pt", r"there is no file missing\.pt: check the path"),
        ("RN50@.", "there is no file .: check the path; it is a folder: name the file of weights"),
    ],
)
def test_a_name_that_is_none(model, message):
    with pytest.raises(InputError, match=message) as caught:
        load_towers(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["small-vit", "openai"])
@pytest.mark.parametrize("file", ["page.pt", "empty.pt", "objects.pt", "cut.safetensors"])
def test_a_file_that_is_none(name, file, files):
    with pytest.raises(InputError, match=f"{file} do not load as {name} \\(") as caught:
        load_towers(f"{name}@{files[file]}")
    said = str(caught.value)
    what = {
        "page.pt": "(it is a web page or a server's error message, saved in place of the weights)",
        "empty.pt": "(the file is empty): download or copy it again",
        "objects.pt": "(it holds no tensors)",
        "cut.safetensors": "(it is not a whole safetensors file: ",
    }
    assert what[file] in said
    assert "weights_only" not in said  # torch's advice, which would run the file's code
    assert "\n" not in said
    assert len(said) < 600


@pytest.mark.parametrize("file", ["state.pt", "state.safetensors", "archive.pt"])
def test_weights_of_another_architecture(file, files):
    with pytest.raises(
        InputError,
        match=r"do not load as small-rn \(of the architecture's \d+ tensors \d+ are missing, such as "
        r"visual\.attnpool\..*\): it holds a ViT of 2 layers and patches of 8 px, width 64, for 32 px, "
        r"with a text tower of 2 layers, width 64: name .*small-vit",
    ):
        load_towers(f"small-rn@{files[file]}")


def test_a_missing_tokenizer(architectures, files, tmp_path):
    """A text tower that wants a package which this project does not install."""
    config = open_clip.get_model_config("small-vit")
    config["text_cfg"]["hf_tokenizer_name"] = str(tmp_path)
    (tmp_path / "other-tokenizer.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "other-tokenizer.json")
    with pytest.raises(InputError, match=r"the tokenizer of model other-tokenizer@.* can't be had"):
        load_towers(f"other-tokenizer@{files['state.pt']}").text  # noqa: B018


@pytest.mark.slow
def test_a_download_that_fails_is_one_clear_line(tmp_path):
    """In a process of its own, whose hub client is told that there is no network."""
    models = ["RN50/openai", "ViT-B-32/laion2b_s34b_b79k", "hf-hub:org/repo"]
    code = """if True:
        import logging, sys
        from iqa_core.clip.load import load_towers
        for model in sys.argv[1:]:
            try:
                load_towers(model)
            except ValueError as error:
                print(f"{type(error).__name__}: {error}")
        assert not logging.getLogger().handlers  # left for the caller to set up
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *models],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    for model, line in zip(models, run.stdout.splitlines(), strict=True):
        start = f"InputError: weights of model {model} could not be fetched ("
        assert line.startswith(start)
        assert "connection" in line.removeprefix(start)  # the hub client's own reason
        assert "use model tiny" in line
    assert run.stderr == ""


# Quiet --------------------------------------------------------------------------------------------


def test_loading_leaves_logging_as_it_was(files, caplog):
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters), root.level)
    load_towers(f"small-vit-quickgelu@{files['state.pt']}")
    with pytest.raises(InputError):
        load_towers(f"small-rn@{files['state.pt']}")
    assert (root.handlers, root.filters, root.level) == before
    assert not caplog.records  # open_clip has plenty to say
