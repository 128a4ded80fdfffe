"""Own modules of image towers: equal to open_clip's, and unpickled without it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from iqa_core.clip import resnet
from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.lean import lean_tower
from iqa_core.clip.resnet import ResNet
from iqa_core.clip.vit import VisionTransformer
from iqa_core.preprocess import Preprocess

VIT = {
    "image_size": 32,
    "patch_size": 8,
    "width": 64,
    "layers": 3,
    "heads": 4,
    "mlp_ratio": 2.0,
    "output_dim": 24,
}


@torch.no_grad()
def randomised(module: nn.Module) -> nn.Module:
    """Give every weight and statistic a random value, so that none is neutral."""
    torch.manual_seed(0)
    for each in module.modules():
        for name, tensor in each.named_parameters(recurse=False):
            is_norm = isinstance(each, (nn.BatchNorm2d, nn.LayerNorm))
            mean = float(is_norm and name == "weight")
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 4
            tensor.normal_(mean, fan_in**-0.5)
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
    return module.eval()


@torch.inference_mode()
def unit(tower: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(tower(images).float(), dim=-1)


def vit(**options) -> nn.Module:
    return randomised(open_clip.transformer.VisionTransformer(**{**VIT, **options}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"act_layer": open_clip.transformer.QuickGELU},
        {"ls_init_value": 0.1},
        {"no_ln_pre": True, "norm_layer": open_clip.transformer.LayerNormFp32},
        {"final_ln_after_pool": True, "patch_dropout": 0.5, "layers": 1},
        {"image_size": (40, 24), "patch_size": (8, 12)},
    ],
    ids=["plain", "quick_gelu", "layer_scale", "no_ln_pre", "one_layer", "oblong"],
)
def test_a_vit_equals_open_clips(options):
    visual = vit(**options)
    lean = lean_tower(visual)
    assert type(lean) is VisionTransformer
    images = torch.randn(3, 3, *visual.image_size)
    torch.testing.assert_close(unit(lean, images), unit(visual, images), rtol=0, atol=1e-6)
    # On a CPU batches are split; and none of the inputs is overwritten.
    many, before = images.repeat(20, 1, 1, 1), images.clone()
    torch.testing.assert_close(unit(lean, many), unit(visual, many), rtol=0, atol=1e-6)
    assert torch.equal(images, before)


def avg_pooled() -> nn.Module:
    return vit(pool_type="avg")


def attention_pooled() -> nn.Module:
    return vit(attentional_pool=True)


def with_custom_blocks() -> nn.Module:
    return vit(qk_norm=True)


def returning_tokens() -> nn.Module:
    return vit(output_tokens=True)


def in_half() -> nn.Module:
    return vit().half()


class Subclass(open_clip.transformer.VisionTransformer):
    """May compute anything."""


def subclassed() -> nn.Module:
    return randomised(Subclass(**VIT))


def with_another_activation() -> nn.Module:
    return vit(act_layer=nn.SiLU)


def frozen_resnet() -> nn.Module:
    visual = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], 24, 4, 64, 8)
    visual.lock(freeze_bn_stats=True)
    return visual


@pytest.mark.parametrize(
    "build",
    [
        avg_pooled, attention_pooled, with_custom_blocks, returning_tokens, in_half, subclassed,
        with_another_activation, frozen_resnet,
    ],
)  # fmt: skip
def test_a_tower_of_another_kind_stays_as_it_is(build):
    visual = build()
    assert lean_tower(visual) is visual


def small_resnet(width: int = 8, layers: tuple[int, ...] = (2, 1, 2, 1)) -> nn.Module:
    heads = width // 2
    return randomised(open_clip.modified_resnet.ModifiedResNet(layers, 24, heads, 64, width))


@pytest.mark.parametrize("positions", [True, False])
def test_a_resnet_equals_open_clips(positions):
    visual = small_resnet()
    lean = lean_tower(visual, positions=positions)
    assert type(lean) is ResNet
    if not positions:
        visual.attnpool.positional_embedding.data.zero_()
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(unit(lean, images), unit(visual, images), rtol=0, atol=1e-6)


def at_any_size(visual: nn.Module) -> nn.Module:
    visual = copy.deepcopy(visual)
    zeros = torch.zeros_like(visual.attnpool.positional_embedding[:1])
    visual.attnpool.positional_embedding = nn.Parameter(zeros)
    return visual


@pytest.mark.parametrize("strip_bytes", [1, 20_000, 100_000])
@pytest.mark.parametrize("first_bytes", [1, 60_000, resnet.FIRST_STAGE_BYTES])
@pytest.mark.parametrize("size", [(64, 64), (97, 65), (230, 50), (333, 130), (258, 33)])
def test_strips_of_a_large_image_change_nothing(size, first_bytes, strip_bytes, monkeypatch):
    """Sides that five halvings do not divide, too: the strips' borders must not be seen."""
    visual = small_resnet(layers=(2, 3, 1, 2))
    lean = lean_tower(visual, positions=False)
    images = torch.randn(2, 3, *size)
    expected = unit(at_any_size(visual), images)
    monkeypatch.setattr(resnet, "STRIP_BYTES", strip_bytes)
    monkeypatch.setattr(resnet, "FIRST_STAGE_BYTES", first_bytes)
    torch.testing.assert_close(unit(lean, images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("limit", ["STRIP_BYTES", "FIRST_STAGE_BYTES"])
def test_a_halo_that_is_too_small_is_seen(limit, monkeypatch):
    """The check above can fail."""
    visual = small_resnet()
    lean = lean_tower(visual, positions=False)
    images = torch.randn(1, 3, 333, 130)
    whole = unit(lean, images)
    monkeypatch.setattr(resnet, limit, 20_000)
    assert (unit(lean, images) - whole).abs().max() < 1e-6
    strips = resnet.in_strips
    monkeypatch.setattr(
        resnet, "in_strips", lambda *given, halo, **named: strips(*given, halo=halo // 2, **named)
    )
    assert (unit(lean, images) - whole).abs().max() > 1e-5


def test_the_fast_algorithm_of_large_images_is_equal():
    """Widths and sizes at which 3 x 3 convolutions of one image go another way, where there is one."""
    visual = small_resnet(width=64, layers=(1, 1, 1, 1))
    lean = lean_tower(visual, positions=False)
    image = torch.randn(1, 3, 161, 290).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        unit(lean, image), unit(at_any_size(visual), image), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("stage", ["layer1", "layer2", "layer4"])
def test_an_overflow_is_not_hidden(stage):
    """oneDNN's fused ReLU makes zero of not-a-number: zeros would be scored."""
    visual = small_resnet()
    getattr(visual, stage)[0].bn3.weight.data *= 1e38
    images = torch.randn(2, 3, 64, 64)
    assert not unit(visual, images).isfinite().any()
    assert not unit(lean_tower(visual), images).isfinite().any()


def test_not_a_number_in_the_sums_reaches_the_features():
    lean = lean_tower(small_resnet(), positions=False)
    x = torch.randn(2, 8, 16, 16).contiguous(memory_format=torch.channels_last)
    x[1, 3, 5, 5] = torch.nan
    with torch.inference_mode():
        for stage in lean.layers:
            x = stage(x)
        features = lean.attnpool(x)
    assert features[0].isfinite().all()
    assert features[1].isnan().all()


@pytest.mark.parametrize("build", [vit, small_resnet])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.005), ("bf16", 0.04)])
def test_half_precision_is_close_to_full(build, precision, tolerance):
    visual = build()
    size = visual.image_size
    preprocess = Preprocess(
        (size, size) if isinstance(size, int) else size, (0.5,) * 3, (0.25,) * 3
    )

    def tower():
        return ImageTower(copy.deepcopy(visual), preprocess, width=24, digest="")

    pixels = np.random.default_rng(0).integers(0, 256, (4, *preprocess.size, 3), dtype=np.uint8)
    full = tower().encode(pixels)
    half = tower().to_device("cpu", precision)
    dtypes = {tensor.dtype for tensor in half.visual.parameters()}
    assert dtypes == {torch.float32, {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]}
    difference = (half.encode(pixels) - full).abs().max()
    assert 0 < difference < tolerance


def test_weights_are_converted_to_one_precision():
    from iqa_core.errors import InputError

    preprocess = Preprocess((32, 32), (0.5,) * 3, (0.25,) * 3)
    tower = ImageTower(vit(), preprocess, width=24, digest="").to_device("cpu", "fp16")
    assert tower.to_device("cpu", "fp16").precision == "fp16"
    with pytest.raises(
        InputError, match=r"precision .*fp32.* must be fp16, which the weights were"
    ):
        tower.to_device("cpu")


@pytest.mark.parametrize("model", ["tiny", "small-vit"])
def test_a_scoring_actor_imports_neither_open_clip_nor_torchvision(model, tmp_path, random_clips):
    from iqa_core.clip.load import load_towers

    if model != "tiny":
        torch.save(random_clips[model].state_dict(), tmp_path / "weights.pt")
        model = f"{model}@{tmp_path / 'weights.pt'}"
    tower = load_towers(model).image
    size = tower.preprocess.size
    (tmp_path / "tower.pickle").write_bytes(pickle.dumps(tower))
    code = f"""
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    tower = pickle.load(file)
features = tower.to_device("cpu").encode(np.full((2, *{size}, 3), 99, dtype=np.uint8))
assert {{"open_clip", "torchvision", "timm", "transformers"}}.isdisjoint(sys.modules)
print(float(features[0, 0]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "tower.pickle"],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True,
    )  # fmt: skip
    own = tower.encode(np.full((2, *size, 3), 99, dtype=np.uint8))
    assert float(run.stdout) == pytest.approx(float(own[0, 0]), abs=1e-6)
