"""Names of weights: every prefix and layout gives the same CLIP, and what is none is told apart."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from iqa_core.clip.load import load_towers
from iqa_core.clip.sizes import ClipSizes
from iqa_core.errors import InputError


@pytest.fixture(scope="module")
def state(random_clips) -> dict[str, torch.Tensor]:
    return dict(random_clips["small-vit"].state_dict())


@pytest.fixture(scope="module")
def resnet(random_clips) -> dict[str, torch.Tensor]:
    return dict(random_clips["small-rn"].state_dict())


@pytest.fixture(scope="module")
def digest(state, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("plain") / "plain.pt"
    torch.save(state, path)
    return load_towers(f"small-vit@{path}").digest


@pytest.fixture
def load(architectures, tmp_path):
    """Load what a file of ``torch.save`` holds."""

    def load(content, model="small-vit", place=""):
        path = tmp_path / "weights.pt"
        torch.save(content, path)
        return load_towers(f"{model}@{path}{place}")

    return load


@pytest.fixture
def refused(load):
    """Return the one line by which such a file is refused."""

    def refused(content, model="small-vit", place=""):
        with pytest.raises(InputError) as caught:
            load(content, model, place)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith("weights of ")
        assert f"do not load as {model} (" in message
        return message

    return refused


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


# Prefixes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["net.", "backbone.module.", "_orig_mod.module.", "student.encoder.", "model.clip_model.0.",
     "visual.", "text.", "transformer.",
     "module.", "_orig_mod.", "module._orig_mod.", "model.", "clip."],
)  # fmt: skip
def test_any_prefix_in_any_container_is_found(prefix, state, digest, load):
    within = prefixed(prefix, state)
    head = {"head.weight": torch.zeros(3), "criterion.scale": torch.ones(())}
    for content in (
        within,
        head | within,
        {"step": 10, "ema_state_dict": within, "hyper_parameters": {"lr": 0.1}},
        {"epoch": 3, "state_dict": within, "pytorch-lightning_version": "2.4.0"},
        {"params": {"backbone": within | head}},
    ):
        assert load(content).digest == digest


def test_a_resnets_prefix_is_found(resnet, load, caplog):
    plain = load(resnet, "small-rn").digest
    without = {name: one for name, one in resnet.items() if "num_batches" not in name}
    assert any("num_batches" in name for name in resnet)
    caplog.set_level(logging.INFO)
    assert load({"model": prefixed("m.", resnet)}, "small-rn").digest == plain
    # A buffer that follows from nothing and is not used by the frozen tower.
    load(prefixed("m.", without), "small-rn")
    assert "not used" not in caplog.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("visual.", "visual._orig_mod."),
        ("visual.", "visual.module."),
        ("resblocks.1.", "resblocks.1._checkpoint_wrapped_module."),
        ("resblocks.", "_fsdp_wrapped_module.resblocks."),
    ],
)
def test_wrappers_within_the_names_are_seen_through(old, new, state, digest, load):
    assert load({name.replace(old, new): one for name, one in state.items()}).digest == digest


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_other_float_types_are_read(kind, state, digest, load):
    """The weights are such that float16 holds them."""
    assert load({name: one.to(kind) for name, one in state.items()}).digest == digest


def test_bfloat16_is_rounded_and_no_more(state, load):
    rounded = {name: one.bfloat16() for name, one in state.items()}
    expected = load({name: one.float() for name, one in rounded.items()})
    assert load(rounded).digest == expected.digest


def test_an_optimizers_state_beside_the_weights_is_ignored_with_a_note(state, digest, load, caplog):
    caplog.set_level(logging.INFO)
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    content = {"model": state, "optimizer": optimizer.state_dict(), "epoch": 3}
    assert load(content).digest == digest
    assert "3 tensors beside the model's are not used, such as optimizer.state.0" in caplog.text


# Several models -----------------------------------------------------------------------------------


def changed(state):
    return state | {"visual.proj": state["visual.proj"] + 1}


def test_two_models_are_refused_and_either_can_be_named(state, digest, load, refused):
    content = {"model": prefixed("student.", changed(state)) | prefixed("teacher.", state)}
    message = refused(content)
    assert "it holds 2 models that fit, 'model.student' and 'model.teacher'" in message
    assert "adding its prefix to the file's name, such as #model.teacher" in message
    assert load(content, place="#model.teacher").digest == digest
    assert load(content, place="#model.student").digest != digest
    assert "no model under 'ema', but under 'model.student'" in refused(content, place="#ema")


def test_averaged_weights_beside_the_last_ones_are_for_the_user_to_choose(
    state, digest, load, refused
):
    content = {**state, "ema": {"module": prefixed("_orig_mod.", changed(state))}}
    assert "2 models that fit, '' and 'ema'" in refused(content)
    assert load(content, place="#").digest == digest
    assert load(content, place="#ema").digest != digest


def test_one_model_stored_twice_is_one_model(state, digest, load):
    assert load({"last": state, "best": {"state_dict": dict(state)}}).digest == digest


def test_a_part_of_another_model_does_not_compete(state, digest, load):
    tower = {name: one for name, one in changed(state).items() if name.startswith("visual.")}
    assert load(prefixed("model.", state) | prefixed("teacher.", tower)).digest == digest


def test_a_file_whose_name_has_the_mark_is_read(state, digest, tmp_path):
    torch.save(state, tmp_path / "run#3.pt")
    assert load_towers(f"small-vit@{tmp_path / 'run#3.pt'}").digest == digest


# Layouts ------------------------------------------------------------------------------------------


def in_transformers(state):
    """Return a ViT's weights as transformers' CLIPModel names them."""
    found = {"logit_scale": state["logit_scale"]}
    for own, theirs in (("visual.", "vision_model"), ("", "text_model")):
        positions = state[f"{own}positional_embedding"]
        found[f"{theirs}.embeddings.position_embedding.weight"] = positions
        found[f"{theirs}.embeddings.position_ids"] = torch.arange(len(positions))[None]
        layers = {name.split(".resblocks.")[1].split(".")[0]
                  for name in state if name.startswith(f"{own}transformer.")}  # fmt: skip
        for layer in layers:
            block, to = f"{own}transformer.resblocks.{layer}", f"{theirs}.encoder.layers.{layer}"
            for kind in ("weight", "bias"):
                for part, joined in zip(
                    "qkv", state[f"{block}.attn.in_proj_{kind}"].chunk(3), strict=True
                ):
                    found[f"{to}.self_attn.{part}_proj.{kind}"] = joined
                found[f"{to}.self_attn.out_proj.{kind}"] = state[f"{block}.attn.out_proj.{kind}"]
                found[f"{to}.layer_norm1.{kind}"] = state[f"{block}.ln_1.{kind}"]
                found[f"{to}.layer_norm2.{kind}"] = state[f"{block}.ln_2.{kind}"]
                found[f"{to}.mlp.fc1.{kind}"] = state[f"{block}.mlp.c_fc.{kind}"]
                found[f"{to}.mlp.fc2.{kind}"] = state[f"{block}.mlp.c_proj.{kind}"]
    for kind in ("weight", "bias"):
        found[f"vision_model.pre_layrnorm.{kind}"] = state[f"visual.ln_pre.{kind}"]
        found[f"vision_model.post_layernorm.{kind}"] = state[f"visual.ln_post.{kind}"]
        found[f"text_model.final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
    found["vision_model.embeddings.class_embedding"] = state["visual.class_embedding"]
    found["vision_model.embeddings.patch_embedding.weight"] = state["visual.conv1.weight"]
    found["text_model.embeddings.token_embedding.weight"] = state["token_embedding.weight"]
    found["visual_projection.weight"] = state["visual.proj"].T
    found["text_projection.weight"] = state["text_projection"].T
    return {name: one.contiguous().clone() for name, one in found.items()}


@pytest.mark.parametrize("prefix", ["", "clip.", "module.model."])
def test_weights_of_transformers_are_read(prefix, state, digest, load, random_clips):
    towers = load(prefixed(prefix, in_transformers(state)))
    assert towers.digest == digest
    clip = random_clips["small-vit"]
    tokens = towers.text.tokenize(["a photo", "a bad photo"])
    torch.testing.assert_close(
        towers.text.encode(["a photo", "a bad photo"]), clip.encode_text(tokens, normalize=True)
    )
    # The architecture can be read off them, too.
    assert load(in_transformers(state), "openai").digest == digest


@pytest.mark.parametrize(
    ("config", "quick"),
    [
        ({"hidden_act": "quick_gelu"}, True),
        ({}, True),  # transformers leaves out what is its default
        ({"hidden_act": "gelu"}, False),
        (None, False),
    ],
)
def test_the_configuration_beside_says_which_activation(config, quick, state, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    save_file(in_transformers(state), tmp_path / "model.safetensors")
    if config is not None:
        text = json.dumps({"model_type": "clip", "vision_config": config})
        (tmp_path / "config.json").write_text(text)
    model = f"@{tmp_path / 'model.safetensors'}"
    assert load_towers(f"small-vit{model}").quick_gelu is quick
    assert bool(caplog.records) is (config is None)
    if config == {"hidden_act": "gelu"}:
        with pytest.raises(
            InputError, match=r"trained with GELU, and would score .*: use small-vit$"
        ):
            load_towers(f"small-vit-quickgelu{model}")


def test_a_text_tower_may_be_a_part_or_not(state, load, tmp_path):
    config = open_clip.get_model_config("small-vit") | {"custom_text": True}
    (tmp_path / "text-apart.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "text-apart.json")
    text = ("token_", "positional_", "transformer.", "ln_final.", "text_")
    apart = {f"text.{name}" if name.startswith(text) else name: one for name, one in state.items()}
    features = [
        load(content, model).text.encode(["a photo"])
        for content in (state, apart)
        for model in ("small-vit", "text-apart")
    ]
    for other in features[1:]:
        assert torch.equal(other, features[0])


def test_shards_are_loaded_by_their_index_and_one_alone_is_refused(
    state, digest, tmp_path, architectures
):
    names = list(state)
    weight_map = {}
    for number, part in enumerate((names[:20], names[20:]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, tmp_path / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert load_towers(f"small-vit@{index}").digest == digest
    with pytest.raises(
        InputError, match=r"one shard of several: .*: give the index, \*\.index\.json"
    ):
        load_towers(f"small-vit@{tmp_path / 'model-00002-of-00002.safetensors'}")


def test_weights_fine_tuned_from_openais_are_not_rounded(random_clips, load):
    """Their own format is partly float16; what was trained further needs all of float32."""
    fine = dict(random_clips["small-vit-quickgelu"].state_dict())
    fine["visual.proj"] = fine["visual.proj"] * (1 + 2**-20)
    towers = load(prefixed("model.", fine), "openai")
    assert towers.quick_gelu
    assert towers.digest == load(fine, "small-vit-quickgelu").digest


# What does not fit --------------------------------------------------------------------------------


def other_config(tmp_path: Path, name: str, **vision):
    config = open_clip.get_model_config("small-vit")
    config["vision_cfg"] |= vision
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    return dict(open_clip.create_model(name).state_dict())


def test_other_sizes_are_named_and_so_is_the_architecture_that_has_them(
    state, refused, tmp_path, architectures
):
    wide = other_config(tmp_path, "wider-vit", width=128)
    message = refused(state, "wider-vit")
    assert "visual.class_embedding is 64 in the file and 128 in the architecture" in message
    assert "with a text tower of 2 layers, width 64: name " in message
    # Among others of these sizes, which other tests may have made.
    assert {"small-vit", "small-vit-quickgelu"} <= set(message.rpartition("name ")[2].split(" or "))
    deep = other_config(tmp_path, "deeper-vit", layers=3)
    message = refused(prefixed("model.", deep))
    assert (
        "its towers have 12 tensors that this architecture has not, such as model.visual" in message
    )
    assert "deeper-vit" in message.rpartition("name ")[2].split(" or ")
    assert "12 are missing, such as visual.transformer.resblocks.2." in refused(state, "deeper-vit")
    assert "wider-vit" in refused(in_transformers(wide)).rpartition("name ")[2].split(" or ")


def test_sizes_that_no_architecture_has(state, refused):
    narrow = state | {"text_projection": state["text_projection"][:, :32]}
    assert "which is none of open_clip's architectures" in refused(narrow)


def test_another_input_size_is_interpolated_with_a_warning(state, load, tmp_path, caplog):
    other_config(tmp_path, "larger-vit", image_size=64)
    towers = load(state, "larger-vit")
    assert towers.preprocess.size == (64, 64)
    assert "visual.positional_embedding was interpolated from 17 to 65 positions" in caplog.text


def test_sizes_are_those_that_open_clips_configurations_state(resnet, state):
    for tensors, name in ((resnet, "small-rn"), (state, "small-vit")):
        sizes = ClipSizes.of_config(open_clip.get_model_config(name))
        for place, content in ((None, tensors), (None, prefixed("a.b.", tensors)),
                               ("a", prefixed("b.", tensors) | prefixed("a.", tensors))):  # fmt: skip
            assert ClipSizes.of_tensors(content, place) == sizes
    assert ClipSizes.of_tensors(in_transformers(state)) == sizes
    assert ClipSizes.of_tensors({"features.0.weight": torch.zeros(3)}) is None
    assert ClipSizes.of_config(open_clip.get_model_config("ViT-B-16-SigLIP")) is None


def only(state, *marks):
    return {name: one for name, one in state.items() if name.startswith(marks)}


def parts(state):
    other = in_transformers(state)
    image, text = "an image tower and no text tower", "a text tower and no image tower"
    adapter = {
        "base_model.model.q.lora_A.weight": torch.zeros(2),
        "b.lora_B.weight": torch.zeros(2),
    }
    adam = {"state": {0: {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}}, "lr": 0.1}
    bare = {name.removeprefix("visual."): one for name, one in only(state, "visual.").items()}
    conv = "visual.conv1.weight"
    return {
        "image tower": (only(state, "visual."), image, "scores need both"),
        "image tower by itself": (bare, image, "scores need both"),
        "transformers' image tower": (only(other, "vision"), image, "scores need both"),
        "text tower": (only(state, "transformer", "token", "pos"), text, "scores need both"),
        "transformers' text tower": (only(other, "text"), text, "scores need both"),
        "adapter": (adapter, "an adapter such as LoRA", r"merge_and_unload\(\)"),
        "adapter beside": (state | adapter, "an adapter such as LoRA", r"merge_and_unload\(\)"),
        "optimizer": (adam, "an optimizer's state and no model", "file that holds the weights"),
        "quantized": (
            state | {conv: (state[conv] * 100).to(torch.int8)},
            "of type int8: the weights are quantized",
            "before quantization",
        ),
        "emptied by DeepSpeed": (dict.fromkeys(state, torch.zeros(0)), "empty", "zero_to_fp32"),
        "siglip": (
            {"vision_model.head.probe": torch.zeros(2), "text_model.head.weight": torch.zeros(2)},
            "transformers' layout of a SigLIP",
            "ViT-B-16-SigLIP/webli",
        ),
        "another network": (
            {"features.0.weight": torch.zeros(2), "classifier.6.bias": torch.zeros(2)},
            "other names, such as features.0.weight and classifier.6.bias",
            "name the architecture",
        ),
        "no scale": (
            {name: one for name, one in state.items() if name != "logit_scale"},
            "1 are missing, such as logit_scale",
            "name",
        ),
        "prompts": (
            {"context": torch.zeros(2), "features": torch.zeros(2)},
            "learned prompts of iqa train",
            "give it as prompts",
        ),
        "one tensor": (torch.zeros(3), "without a name", "name the architecture"),
    }


def test_what_is_no_whole_clip_is_named_with_advice(state, refused):
    for kind, (content, problem, advice) in parts(state).items():
        message = refused(content)
        assert problem in message, kind
        assert re.search(rf"\): .*{advice}", message), kind
