"""Towers: each form of ``--model``, which activation it gets, and what both towers compute."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory, pretrained
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.clip.text_tower import TextTower
from iqa_core.errors import InputError
from iqa_core.images.decode import decode_image, prepare_image
from iqa_core.preprocess import Preprocess
from iqa_core.scoring.encode import encode_images

ROOT = Path(__file__).parents[3]
PROMPTS = ["a photo", "Good photo.", "a photo of a cat, with compression artifacts", ""]


@pytest.fixture(scope="module")
def tiny():
    return load_towers("tiny")


@pytest.fixture(scope="module")
def files(random_clips, openai_archives, tmp_path_factory) -> dict[str, Path]:
    """The weights of ``small-vit`` in each format, and files that are none."""
    folder = tmp_path_factory.mktemp("files")
    state = random_clips["small-vit"].state_dict()
    torch.save(state, folder / "state.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
               folder / "checkpoint.pt")  # fmt: skip
    save_file(state, folder / "state.safetensors")
    (folder / "page.pt").write_text("<html>404</html>")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "cut.safetensors").write_bytes((folder / "state.safetensors").read_bytes()[:5000])
    torch.save({"a": Path()}, folder / "objects.pt")
    found = {path.name: path for path in folder.iterdir()}
    return found | {"archive.pt": openai_archives["small-vit-quickgelu"]}


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
    parameters = [*tiny.image.parameters(), *tiny.text.parameters()]
    assert not any(parameter.requires_grad for parameter in parameters)
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert not any(module.training for module in [*tiny.image.modules(), *tiny.text.modules()])


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
    assert {parameter.dtype for parameter in towers.image.parameters()} == {torch.float32}
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
        ("RN50/opnai", "tag 'opnai' of --model RN50/opnai is unknown: RN50 has openai, yfcc15m"),
        ("tiny/openai", "tag 'openai' of .* is unknown: tiny has no pretrained weights"),
        ("RN51@x.pt", "architecture 'RN51' is none of"),
        ("RN50@missing.pt", r"--model RN50@missing\.pt: there is no file missing\.pt: check"),
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
    with pytest.raises(
        InputError, match=r"the tokenizer of --model other-tokenizer@.* can't be had"
    ):
        load_towers(f"other-tokenizer@{files['state.pt']}").text  # noqa: B018


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
        start = f"InputError: weights of --model {model} could not be fetched ("
        assert line.startswith(start)
        assert "connection" in line.removeprefix(start)  # the hub client's own reason
        assert "use --model tiny" in line
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


# Text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["tiny", "small-rn-quickgelu", "small-vit-quickgelu"])
@pytest.mark.parametrize("custom_text", [False, True])
def test_embeddings_of_plain_prompts_are_open_clips_encode_text(
    architecture, custom_text, tiny, random_clips
):
    if architecture == "tiny":
        weights = ROOT / "iqa_core" / "weights" / "tiny.safetensors"
        clip = open_clip.create_model("tiny", str(weights), force_custom_text=custom_text).eval()
    else:
        clip = open_clip.create_model(architecture, force_custom_text=custom_text).eval()
        state = random_clips[architecture].state_dict()
        if custom_text:
            state = open_clip.model.convert_to_custom_text_state_dict(state)
        clip.load_state_dict(state)
    text = TextTower(clip, open_clip.get_tokenizer(architecture))
    tokens = open_clip.get_tokenizer(architecture)(PROMPTS)
    with torch.no_grad():
        expected = clip.encode_text(tokens, normalize=True)
        embedded = text.encode_embeddings(text.token_embedding(tokens), text.end_of_text(tokens))
    assert torch.equal(text.tokenize(PROMPTS), tokens)
    torch.testing.assert_close(embedded, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(text.encode(PROMPTS), expected, rtol=0, atol=1e-6)
    assert (expected[:1] - expected[1:]).abs().max(dim=-1).values.min() > 1e-3  # prompts differ


def test_what_follows_end_of_text_does_not_matter(tiny):
    tokens = tiny.text.tokenize(["a photo", "a very long prompt about a photo"])
    end = tiny.text.end_of_text(tokens)
    embeddings = tiny.text.token_embedding(tokens)
    expected = tiny.text.encode_embeddings(embeddings, end)
    for row, position in enumerate(end):
        embeddings[row, position + 1 :] = 100
    changed = tiny.text.encode_embeddings(embeddings, end)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6)
    cut = tiny.text.encode_embeddings(embeddings[:, : end.max() + 1], end)
    torch.testing.assert_close(cut, expected, rtol=0, atol=1e-6)


def test_gradients_reach_the_embeddings_up_to_end_of_text(tiny):
    tokens = tiny.text.tokenize(["a good photo"])
    embeddings = tiny.text.token_embedding(tokens).requires_grad_()
    end = tiny.text.end_of_text(tokens)
    tiny.text.encode_embeddings(embeddings, end)[:, 0].sum().backward()
    size = embeddings.grad.abs().amax(dim=-1)[0]
    assert (size[: end + 1] > 0).all()
    assert (size[end + 1 :] == 0).all()


def test_a_prompt_that_is_too_long(tiny):
    room = tiny.text.context_length - 2  # start- and end-of-text
    fits = " ".join(["photo"] * room)
    assert tiny.text.tokenize([fits])[0, -1] == tiny.text.eot_id
    assert tiny.text.encode([fits]).isfinite().all()
    with pytest.raises(InputError, match=r"has 78 tokens, but the text tower takes at most 77: sh"):
        tiny.text.tokenize(["a photo", f"{fits} photo"])
    with pytest.raises(
        InputError, match="prompts of 78 tokens are longer than the text tower's 77"
    ):
        tiny.text.encode_embeddings(torch.zeros(1, 78, 128), torch.tensor([77]))


@pytest.mark.parametrize("kind", [{"no_causal_mask": True}, {"pool_type": "last"},
                                  {"embed_cls": True}])  # fmt: skip
def test_a_tower_of_another_kind_encodes_but_takes_no_embeddings(kind, architectures):
    config = open_clip.get_model_config("small-vit")
    config["text_cfg"] |= kind
    clip = open_clip.CustomTextCLIP(**config).eval()
    text = TextTower(clip, open_clip.get_tokenizer("small-vit"))
    expected = clip.encode_text(text.tokenize(PROMPTS), normalize=True)
    assert torch.equal(text.encode(PROMPTS), expected)
    with pytest.raises(InputError, match=r"is not of CLIP's causal kind .* use another --model"):
        text.encode_embeddings(torch.zeros(1, 3, 64), torch.tensor([2]))


def test_neither_tower_holds_the_other(tiny):
    """What is sent to a worker is what it needs."""
    both = sum(
        parameter.numel() for parameter in [*tiny.image.parameters(), *tiny.text.parameters()]
    )
    image, text = (len(pickle.dumps(tower)) for tower in (tiny.image, tiny.text))
    tokenizer = len(pickle.dumps(tiny.text.tokenizer))
    assert image + text - tokenizer < 1.1 * 4 * both
    parameters = sum(parameter.numel() for parameter in tiny.image.parameters())
    assert image < 1.1 * 4 * parameters + 100_000


# Images -------------------------------------------------------------------------------------------


def test_pixels_through_exact_decoding_equal_open_clips_own_transform(tiny, photos):
    weights = ROOT / "iqa_core" / "weights" / "tiny.safetensors"
    clip = open_clip.create_model("tiny", pretrained=str(weights)).eval()
    for photo in (photos["chelsea"], photos["china"], photos["flower"][:, :200]):
        pixels = prepare_image(Image.fromarray(photo), tiny.preprocess, mode="exact").pixels
        expected = reference_features(clip, photo[None])
        torch.testing.assert_close(tiny.image.encode(pixels[None]), expected, rtol=0, atol=1e-6)


def test_features_do_not_depend_on_the_batch(tiny):
    pixels = noise(5, 224, 224)
    alone = torch.cat([tiny.image.encode(pixels[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(tiny.image.encode(pixels), alone, rtol=0, atol=1e-5)


def test_pixels_may_be_read_only_a_view_or_a_tensor(tiny):
    """Arrays from Ray are read-only, and torch takes no negative stride."""
    pixels = noise(2, 224, 224)
    copied = pixels.copy()
    pixels.flags.writeable = False
    features = tiny.image.encode(pixels)
    assert np.array_equal(pixels, copied)
    flipped = np.ascontiguousarray(pixels[:, :, ::-1])
    assert torch.equal(tiny.image.encode(pixels[:, :, ::-1]), tiny.image.encode(flipped))
    assert torch.equal(tiny.image.encode(torch.from_numpy(copied)), features)


def test_pixels_of_a_wrong_kind(tiny):
    good = noise(1, 224, 224)
    for wrong in (good[0], good.astype(np.float32), good[..., :1], good.transpose(0, 3, 1, 2)):
        with pytest.raises(
            ValueError, match=r"pixels have shape .* must be \(N, H, W, 3\) of torch"
        ):
            tiny.image.encode(wrong)
    with pytest.raises(ValueError, match=r"224 x 200, but this tower takes \(224, 224\): resize"):
        tiny.image.encode(good[:, :, :200])


def test_half_precision_on_a_cpu_is_close_and_returns_float32(tiny):
    pixels = noise(2, 224, 224)
    full = tiny.image.encode(pixels)
    for precision in ("bf16", "fp16"):
        tower = copy.deepcopy(tiny.image).to_device("cpu", precision)
        features = tower.encode(pixels)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
        assert 0 < (features - full).abs().max() < 0.02


def test_auto_is_full_precision_on_a_cpu(tiny):
    tower = copy.deepcopy(tiny.image).to_device("cpu")
    assert (tower.precision, tower.device) == ("fp32", torch.device("cpu"))


def test_a_precision_or_resolution_that_is_none(tiny):
    with pytest.raises(InputError, match="--precision 'half' is none of auto, fp32, bf16, fp16"):
        copy.deepcopy(tiny.image).to_device("cpu", "half")
    with pytest.raises(InputError, match="--resolution 'full' is none of model, native"):
        load_towers("tiny", "full")


# Native resolution --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def native(openai_archives):
    return load_towers(f"openai@{openai_archives['small-rn-quickgelu']}", "native")


def test_native_takes_any_size(native, photos):
    for photo in photos.values():
        features = native.image.encode(photo[None, :201, :97])
        assert features.shape == (1, 64)
        assert features.norm() == pytest.approx(1)


def test_native_equals_the_tower_whose_positions_are_zero(native, random_clips):
    clip = copy.deepcopy(random_clips["small-rn-quickgelu"])
    assert clip.visual.attnpool.positional_embedding.abs().max() > 0.01
    torch.nn.init.zeros_(clip.visual.attnpool.positional_embedding)
    pixels = noise(2, 64, 64)
    features = native.image.encode(pixels)
    torch.testing.assert_close(features, reference_features(clip, pixels))
    with_positions = reference_features(random_clips["small-rn-quickgelu"], pixels)
    assert (features - with_positions).abs().max() > 1e-4


def test_native_does_not_change_the_digest(native, openai_archives):
    model = f"openai@{openai_archives['small-rn-quickgelu']}"
    assert load_towers(model).digest == native.digest


def test_native_has_a_smallest_side(native):
    side = ImageTower.min_side
    assert native.image.encode(noise(1, side, 3 * side)).isfinite().all()
    for shape in ((side - 1, 100), (100, side - 1)):
        with pytest.raises(ValueError, match=r"31.* needs at least 32 px a side: use --resolution"):
            native.image.encode(noise(1, *shape))


def test_native_needs_a_resnet(files):
    with pytest.raises(
        InputError, match="needs a ResNet image tower, but this one is a Vision"
    ) as e:
        load_towers(f"small-vit@{files['state.pt']}", "native")
    assert "use --resolution model, or a model such as RN50/openai" in str(e.value)


def test_images_of_native_size_are_decoded_whole(native, photos):
    buffer = BytesIO()
    Image.fromarray(photos["chelsea"]).save(buffer, "PNG")
    pixels = decode_image(buffer.getvalue()).pixels
    assert torch.equal(
        native.image.encode(pixels[None]), native.image.encode(photos["chelsea"][None])
    )


# Not-a-number -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("visual.attnpool.c_proj.bias", torch.nan, "not-a-number"),
        ("transformer.resblocks.1.mlp.c_fc.weight", torch.inf, "infinity"),
        ("positional_embedding", -torch.inf, "infinity"),
    ],
)
@pytest.mark.parametrize("form", ["{}@", "openai@"])
def test_weights_that_are_not_finite_are_refused(form, key, value, words, random_clips, tmp_path):
    state = {name: one.clone() for name, one in random_clips["small-rn"].state_dict().items()}
    state[key].view(-1)[3] = value  # one number is enough
    state["ln_final.bias"][:] = value
    torch.save({"model": state}, tmp_path / "w.pt")
    with pytest.raises(InputError) as caught:
        load_towers(f"{form.format('small-rn')}{tmp_path / 'w.pt'}")
    message = str(caught.value)
    first = min((key, "ln_final.bias"), key=list(state).index)
    floats = sum(one.is_floating_point() for one in state.values())
    assert f"hold {words} in 2 of {floats} tensors, {first} the first" in message
    assert "use an earlier checkpoint" in message


def test_float64_weights_beyond_float32_are_refused(random_clips, tmp_path):
    state = {name: one.double() for name, one in random_clips["small-vit"].state_dict().items()}
    state["visual.proj"][0, 0] = 1e300
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"hold infinity in 1 of \d+ tensors, visual\.proj the first"
    ):
        load_towers(f"small-vit@{tmp_path / 'w.pt'}")


def with_scale(random_clips, tmp_path, stored):
    state = dict(random_clips["small-vit"].state_dict()) | {"logit_scale": torch.tensor(stored)}
    torch.save(state, tmp_path / "w.pt")
    return f"small-vit@{tmp_path / 'w.pt'}"


def test_a_scale_that_overflows_is_refused(random_clips, tmp_path):
    with pytest.raises(
        InputError, match=r"logit_scale of 100, .*\(a scale of 100 is stored as 4.605"
    ):
        load_towers(with_scale(random_clips, tmp_path, 100.0))
    with pytest.raises(InputError, match="logit_scale of -200, whose exponential is no scale"):
        load_towers(with_scale(random_clips, tmp_path, -200.0))


@pytest.mark.parametrize(("stored", "near"), [(14.3, "0 or 1"), (-2.0, "0.5")])
def test_a_scale_that_no_training_gives_is_told(stored, near, random_clips, tmp_path, caplog):
    towers = load_towers(with_scale(random_clips, tmp_path, [stored]))
    assert towers.logit_scale == pytest.approx(np.exp(stored), rel=1e-6)
    assert f"so scores will be near {near}: give --logit-scale" in caplog.text


class Linear(torch.nn.Module):
    """An image tower of one layer, whose weights a test sets."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 4, bias=False)
        torch.nn.init.constant_(self.layer.weight, weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.mean(dim=(2, 3)))


PLAIN = Preprocess(size=(8, 8), mean=(0.0,) * 3, std=(1e-3,) * 3)
WHITE = np.full((2, 8, 8, 3), 255, dtype=np.uint8)


def test_an_overflow_of_half_precision_is_the_models_error():
    """As on a GPU, whose automatic precision is fp16: finite in fp32, infinite above 65,504."""
    tower = ImageTower(Linear(50.0), PLAIN, width=4, digest="")
    assert tower.encode(WHITE).isfinite().all()
    tower = ImageTower(Linear(50.0), PLAIN, width=4, digest="").to_device("cpu", "fp16")
    features, errors = encode_images(tower.encode, list(WHITE), 4)
    assert np.isnan(features).all()
    assert errors == dict.fromkeys((0, 1), "the image tower returned features that are not finite")


@pytest.mark.parametrize("weight", [0.0, 1e30])
def test_features_without_direction_are_not_a_number(weight):
    """Zeros would score 0.5; the length of such large ones is infinite, which leaves zeros."""
    assert ImageTower(Linear(weight), PLAIN, width=4, digest="").encode(WHITE).isnan().all()
