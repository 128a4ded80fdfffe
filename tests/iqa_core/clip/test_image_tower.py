"""The image tower: pixels to features, precision, and images of native size."""

from __future__ import annotations

import copy
from io import BytesIO
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.images.decode import decode_image, prepare_image
from iqa_core.preprocess import Preprocess
from iqa_core.scoring.encode import encode_images

ROOT = Path(__file__).parents[3]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@torch.no_grad()
def reference_features(clip, pixels: np.ndarray) -> torch.Tensor:
    """Unit features as a user of open_clip computes them, one Pillow image at a time."""
    transform = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    batch = torch.stack([transform(Image.fromarray(image)) for image in pixels])
    return clip.encode_image(batch, normalize=True)


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
    with pytest.raises(
        InputError, match=r"precision \('half'\) must be one of auto, fp32, bf16, fp16: "
    ):
        copy.deepcopy(tiny.image).to_device("cpu", "half")
    with pytest.raises(InputError, match=r"resolution \('full'\) must be one of model, native: "):
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
    assert "use resolution model, or a model such as RN50/openai" in str(e.value)


def test_images_of_native_size_are_decoded_whole(native, photos):
    buffer = BytesIO()
    Image.fromarray(photos["chelsea"]).save(buffer, "PNG")
    pixels = decode_image(buffer.getvalue()).pixels
    assert torch.equal(
        native.image.encode(pixels[None]), native.image.encode(photos["chelsea"][None])
    )


# Not-a-number


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
