"""Render the training cache: scenes, distortions and what is known about each image.

Each group of six images shares one clean crop: the crop itself and five distorted ones, either a
ladder (one kind, five rising severities) or a mixture (other kinds, one or two at a time). Every
group is a function of the seed and its own number only, so shards can be rendered in any order, by
any number of processes, and continued later.

The quality target is HaarPSI of the distorted against the clean crop, at the crop's own size
(Reisenhofer, Bosse, Kutyniok, Wiegand, Signal Processing: Image Communication 2018,
https://arxiv.org/abs/1607.06140; computed by piq). It is one published scale in [0, 1] for all
distortions, sees chroma, contrast and lost detail, and falls along every ladder of ours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import piq
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from tools.distortions import DISTORTIONS, UNSEEN_KINDS, distort
from tools.tiny.photos import (
    Photo,
    dead_leaves,
    find_photos,
    find_stamps,
    load_photo,
    stamp_collage,
)

__all__ = [
    "ALL_KINDS",
    "GROUP",
    "IMAGE_SIZE",
    "TRAIN_KINDS",
    "Scenes",
    "colourfulness",
    "full_reference",
    "model_view",
    "render_shard",
    "statistics",
]

ImageArray = NDArray[np.uint8]

IMAGE_SIZE = 224
GROUP = 6
ALL_KINDS = tuple(DISTORTIONS)
TRAIN_KINDS = tuple(kind for kind in ALL_KINDS if kind not in UNSEEN_KINDS)
# How often a kind is drawn, 1 if not named: more of what is hard to see, less of what no image
# shows by itself.
OFTEN = {
    **{"colour_cast": 2.0, "blocks": 2.0, "webp": 2.0, "motion_blur": 2.0, "desaturation": 5.0},
    **{"pixelate": 1.2, "aliasing": 1.5, "oversharpen": 1.5, "overexposed": 1.5},
    **{"warp": 0.4, "vignette": 0.4, "ghost": 0.5, "halftone": 0.6, "chroma_shift": 0.7},
    "low_contrast": 3.0,
}
CHANCE = np.array([OFTEN.get(kind, 1.0) for kind in TRAIN_KINDS])
CHANCE /= CHANCE.sum()
COLUMNS = (
    *("kind1", "severity1", "kind2", "severity2", "quality"),
    *("luma", "contrast", "colour", "group", "ladder", "source", "validation"),
)


def full_reference(distorted: ImageArray, clean: ImageArray) -> float:
    """HaarPSI of two uint8 RGB images `(H, W, 3)` of one shape: 1 is identical, 0 is worst."""
    pair = [
        torch.from_numpy(a.copy()).permute(2, 0, 1)[None].float() / 255 for a in (distorted, clean)
    ]
    with torch.inference_mode():
        return float(piq.haarpsi(pair[0], pair[1], data_range=1.0))


def model_view(image: ImageArray, size: int = IMAGE_SIZE) -> ImageArray:
    """Resize the shorter side to `size` (bicubic) and cut the centre, as open_clip does."""
    picture = tvf.resize(Image.fromarray(image), size, InterpolationMode.BICUBIC)
    return np.asarray(tvf.center_crop(picture, size))


def colourfulness(image: ImageArray) -> float:
    """Hasler and Suesstrunk's colourfulness (SPIE 2003) of uint8 RGB, divided by 100."""
    red, green, blue = (image[..., c].astype(np.float32) for c in range(3))
    first, second = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(first.std(), second.std())
    return float(spread + 0.3 * np.hypot(first.mean(), second.mean())) / 100


def statistics(image: ImageArray) -> tuple[float, float, float]:
    """Mean luma in [0, 1], its standard deviation, and colourfulness of uint8 RGB."""
    luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    return float(luma.mean()), float(luma.std()), colourfulness(image)


@dataclass
class Scenes:
    """Clean crops of photographs and of composed scenes.

    Args:
        root: Folder of the unpacked packages.
    """

    root: Path
    photos: list[Photo] = field(init=False)
    stamps: list[Path] = field(init=False)
    _decoded: dict[int, ImageArray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Find the photographs and stamps."""
        self.photos = find_photos(self.root)
        self.stamps = find_stamps(self.root)

    def _photo(self, index: int) -> ImageArray:
        if index not in self._decoded:
            self._decoded[index] = load_photo(self.photos[index])
        return self._decoded[index]

    def crop(self, rng: np.random.Generator) -> tuple[ImageArray, int, bool]:
        """Draw one clean crop.

        Args:
            rng: Decides everything.

        Returns:
            The crop, uint8 RGB with a shorter side of 240 to 512 pixels; its source (photograph's
            number, -1 for a collage, -2 for dead leaves); whether it is for validation.
        """
        short = int(np.exp(rng.uniform(np.log(240), np.log(512))))
        long = int(short * np.clip(rng.normal(1.33, 0.2), 1.0, 1.8))
        height, width = (short, long) if rng.random() < 0.75 else (long, short)
        choice = rng.random()
        if choice < 0.10 and self.stamps:
            source, whole = -1, stamp_collage(rng, 560, self.stamps)
        elif choice < 0.17:
            source, whole = -2, dead_leaves(rng, 560)
        else:
            source = int(rng.integers(len(self.photos)))
            whole = self._photo(source)
        # The region is at least as large as the crop (shrinking keeps it sharp), as far as it fits.
        fit = min(whole.shape[0] / height, whole.shape[1] / width)
        zoom = np.exp(rng.uniform(np.log(min(1.1, fit)), np.log(fit)))
        rows, columns = int(height * zoom), int(width * zoom)
        top = int(rng.integers(whole.shape[0] - rows + 1))
        left = int(rng.integers(whole.shape[1] - columns + 1))
        region = Image.fromarray(whole[top : top + rows, left : left + columns])
        if fit < 1:
            height, width = max(230, rows), max(230, columns)
        image = region.resize((width, height), Image.Resampling.LANCZOS)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.04:
            image = image.convert("L").convert("RGB")
        return np.asarray(image), source, source >= 0 and self.photos[source].validation


def render_group(
    scenes: Scenes, group: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Render one clean crop and five distorted ones.

    Args:
        scenes: Where crops come from.
        group: The group's number.
        seed: The cache's seed.

    Returns:
        Images `(6, 224, 224, 3)` and the table `(6, columns)` in the order of `COLUMNS`; kinds are
        positions in `ALL_KINDS`, -1 for none.
    """
    rng = np.random.default_rng([seed, group])
    clean, source, validation = scenes.crop(rng)
    images = [model_view(clean)]
    head = (float(group), 0.0, float(source), float(validation))
    rows: list[tuple[float, ...]] = [(-1.0, 0.0, -1.0, 0.0, 1.0, *statistics(images[0]), *head)]
    ladder = rng.random() < 0.6
    kind = TRAIN_KINDS[int(rng.choice(len(TRAIN_KINDS), p=CHANCE))]
    place_seed = int(rng.integers(2**31))
    for step in range(1, GROUP):
        first, second = (kind, float(rng.uniform((step - 1) / 5, step / 5))), ("", 0.0)
        if not ladder:
            both = rng.choice(len(TRAIN_KINDS), 2, replace=False, p=CHANCE)
            first = (TRAIN_KINDS[int(both[0])], float(rng.random()))
            if rng.random() < 0.35:
                first = (first[0], 0.8 * first[1])
                second = (TRAIN_KINDS[int(both[1])], 0.8 * float(rng.random()))
        image = distort(clean, *first, seed=place_seed)
        if second[0]:
            image = distort(image, *second, seed=place_seed + 1)
        view = model_view(image)
        images.append(view)
        other = float(ALL_KINDS.index(second[0])) if second[0] else -1.0
        done = (float(ALL_KINDS.index(first[0])), first[1], other, second[1])
        seen = (full_reference(image, clean), *statistics(view))
        rows.append((*done, *seen, head[0], float(ladder), *head[2:]))
    return np.stack(images), np.array(rows, np.float32)


def render_shard(scenes: Scenes, shard: int, groups: int, seed: int, folder: Path) -> Path:
    """Render `groups` groups into `shard-NNNNN.npy` and its `.table.npy`; skip if both are there.

    Args:
        scenes: Where crops come from.
        shard: The shard's number; it holds groups `shard * groups` and on.
        groups: Groups in a shard.
        seed: The cache's seed.
        folder: Where shards lie.

    Returns:
        The shard's path.
    """
    path = folder / f"shard-{shard:05d}.npy"
    table_path = path.with_suffix(".table.npy")
    if path.exists() and table_path.exists():
        return path
    rendered = [render_group(scenes, shard * groups + g, seed) for g in range(groups)]
    for target, parts in ((table_path, [r[1] for r in rendered]), (path, [r[0] for r in rendered])):
        temporary = target.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.save(file, np.concatenate(parts))
        os.replace(temporary, target)
    return path
