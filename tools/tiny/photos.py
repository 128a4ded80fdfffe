"""The photographs that `tiny` is trained on, and scenes composed without photographs.

Photographs come from unpacked Debian packages; each pattern below was checked by eye, because
most files of these packages are drawings. GCompris keeps its pictures inside Qt resource files
(`*.rcc`), which store each entry as a four-byte length and the plain JPEG or WebP bytes. The stock
photographs of web page templates on npm are listed one by one in `npm_photos.txt`, also by eye.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

__all__ = [
    "Photo",
    "dead_leaves",
    "find_photos",
    "find_stamps",
    "load_photo",
    "stamp_collage",
    "used_packages",
]

ImageArray = NDArray[np.uint8]

LONGEST_SIDE = 1800
VALIDATION_EVERY = 8

PATTERNS = (
    *(
        f"*mate-backgrounds*/usr/share/backgrounds/mate/nature/{name}.jpg"
        for name in (
            *("Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow", "LadyBird"),
            *("RainDrops", "Storm", "TwoWings", "Wood", "YellowFlower"),
        )
    ),
    *(
        f"*plasma-workspace-wallpapers*/usr/share/wallpapers/{name}/contents/images/2560x1600.jpg"
        for name in (
            *("BytheWater", "ColorfulCups", "ColdRipple", "DarkestHour", "EveningGlow"),
            *("FallenLeaf", "Grey", "Kite", "OneStandsOut", "Path", "summer_1am"),
        )
    ),
    "*palapeli-data*/usr/share/palapeli/collection/*.jpg",
)
# Resource file -> positions of its photographs (None: all) among its pictures of 250 pixels or
# more on each side.
RESOURCES: dict[str, tuple[int, ...] | None] = {
    "categorization": (0, 1, 4, 5, 6, 9, 11),
    "clickgame": None,
    "details": (0, 1, 3, 5, 6, 9, 11, 13, 14, 16, 17, 18, 20),
    "erase": None,
    "explore_farm_animals": None,
    "explore_monuments": None,
    "explore_world_animals": None,
    "explore_world_music": None,
    "louis-braille": (1, 2, 4, 5, 9),
}
# Found later. They come last in the list, so that the split of the others stays as it was.
LATER_PATTERNS = (
    *(
        f"*lomiri-wallpapers-{name}.jpg"
        for name in (
            *("16.04*/**/Picture_1A_by_freespace", "16.04*/**/Wine_by_Jakkub_Mede"),
            *("16.04*/**/greentock_by_Peter_Nerlich", "16.04*/**/seeding_by_Clements_Engelhardt"),
            *("16.04*/**/aitzgorri_by_*", "16.04*/**/Dragonfly_by_Bolly", "16.04*/**/friends_by_*"),
            *("16.04*/**/sunset_by_*", "16.04*/**/free_by_*", "16.04*/**/picosdeeuropa_by_*"),
            *("16.04*/**/Picture_0B_by_freespace", "16.04*/**/life_by_*"),
            "20.04*/**/Kleiber_by_*",
        )
    ),
    *(
        f"*opencv-doc*/usr/share/doc/opencv-doc/examples/{name}"
        for name in (
            *("alphamat/input_images/plant.jpg", "data/aero1.jpg", "data/aloeL.jpg"),
            *("data/baboon.jpg", "data/board.jpg", "data/building.jpg", "data/butterfly.jpg"),
            *("data/fruits.jpg", "data/graf1.png", "data/home.jpg", "data/leuvenA.jpg"),
            *("data/orange.jpg", "data/rubberwhale1.png", "data/squirrel_cls.jpg"),
            *("text/scenetext01.jpg", "text/scenetext02.jpg", "text/scenetext05.jpg"),
            "text/scenetext06.jpg",
        )
    ),
)
NPM_PHOTOS = Path(__file__).with_name("npm_photos.txt")
STAMP_FOLDERS = (
    *("animals", "food", "household", "plants", "vehicles", "space", "clothes", "sports"),
    *("hobbies", "military"),
)


@dataclass(frozen=True)
class Photo:
    """One photograph: where it comes from, how to read its bytes, and its split."""

    name: str
    read: Callable[[], bytes]
    validation: bool


def _resource_pictures(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    for match in re.finditer(rb"RIFF....WEBP|\xff\xd8\xff[\xe0\xe1\xdb\xee]", data, re.DOTALL):
        start = match.start()
        (length,) = struct.unpack(">I", data[start - 4 : start])
        if not 3000 < length <= len(data) - start:
            continue
        picture = data[start : start + length]
        try:
            size = Image.open(io.BytesIO(picture)).size
        except OSError:
            continue
        if min(size) >= 250:
            yield picture


def find_photos(root: Path) -> list[Photo]:
    """List the training photographs below `root`, in a fixed order.

    Args:
        root: Folder that holds the unpacked packages, one folder each, with the package's name in
            the folder's name; those of npm in `npm-NAME-VERSION` (`npm-SCOPE-NAME-VERSION`).

    Returns:
        Photographs; every eighth is marked for validation.

    Raises:
        FileNotFoundError: If there are none.
    """
    found: list[tuple[str, Callable[[], bytes]]] = []
    for pattern in PATTERNS:
        found += [(str(p.relative_to(root)), p.read_bytes) for p in sorted(root.glob(pattern))]
    for name, keep in RESOURCES.items():
        for path in sorted(root.glob(f"*gcompris-qt-data*/usr/share/gcompris-qt/rcc/{name}.rcc")):
            for position, picture in enumerate(_resource_pictures(path)):
                if keep is None or position in keep:
                    found.append((f"{path.relative_to(root)}#{position}", partial(bytes, picture)))
    for pattern in LATER_PATTERNS:
        found += [(str(p.relative_to(root)), p.read_bytes) for p in sorted(root.glob(pattern))]
    for line in NPM_PHOTOS.read_text().splitlines():
        package, _, place = line.partition(" ")
        folder = "npm-" + package.lstrip("@").replace("/", "-").replace("@", "-")
        if (path := root / folder / place).exists():
            found.append((f"{folder}/{place}", path.read_bytes))
    if not found:
        raise FileNotFoundError(f"no training photographs below {root}: unpack the packages there")
    return [
        Photo(name, read, position % VALIDATION_EVERY == VALIDATION_EVERY - 1)
        for position, (name, read) in enumerate(found)
    ]


def load_photo(photo: Photo) -> ImageArray:
    """Decode a photograph as uint8 RGB `(H, W, 3)`, at most 1800 pixels on its longer side."""
    stored = Image.open(io.BytesIO(photo.read()))
    image = ImageOps.exif_transpose(stored).convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)


def find_stamps(root: Path) -> list[Path]:
    """List cut-out pictures (RGBA PNG) of the Tux Paint stamps below `root`; may be empty."""
    stamps: list[Path] = []
    for folder in STAMP_FOLDERS:
        pattern = f"*tuxpaint-stamps-default*/usr/share/tuxpaint/stamps/{folder}/**/*.png"
        stamps += [p for p in sorted(root.glob(pattern)) if "cartoon" not in p.parts]
    return stamps


def used_packages(root: Path) -> list[str]:
    """Folders below `root` that give a photograph or a cut-out: packages with their versions."""
    names = [photo.name for photo in find_photos(root)]
    names += [str(path.relative_to(root)) for path in find_stamps(root)]
    return sorted({name.split("/", 1)[0] for name in names})


def _fractal(rng: np.random.Generator, side: int, slope: float) -> NDArray[np.float32]:
    """Noise `(side, side)` in [0, 1] with the power spectrum of natural scenes, 1/f^slope."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = 1.0
    spectrum = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
    field = np.fft.irfft2(spectrum / frequency**slope, s=(side, side))
    low, high = np.percentile(field, (1, 99))
    return np.clip((field - low) / (high - low + 1e-9), 0, 1).astype(np.float32)


def _texture(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    colours = rng.random((2, 3)).astype(np.float32)
    field = _fractal(rng, side, float(rng.uniform(0.8, 2.2)))[..., None]
    return colours[0] * field + colours[1] * (1 - field)


def dead_leaves(rng: np.random.Generator, side: int) -> ImageArray:
    """Compose an image `(side, side, 3)` of overlapping textured shapes of all sizes.

    The dead-leaves model (Lee, Mumford, Huang, IJCV 2001) has the edge and scale statistics of
    natural images; here each leaf also carries a texture and a soft shading.
    """
    canvas = _texture(rng, side)
    textures = [_texture(rng, side) for _ in range(4)]
    grid = np.mgrid[0:side, 0:side].astype(np.float32)
    for _ in range(int(rng.integers(15, 70))):
        radius = float(np.clip(0.02 * rng.pareto(1.2) + 0.02, 0.02, 0.35)) * side
        cy, cx = rng.uniform(0, side, 2)
        turn, stretch = rng.uniform(0, np.pi), rng.uniform(0.4, 1.0)
        y, x = grid[0] - cy, grid[1] - cx
        u = np.cos(turn) * x + np.sin(turn) * y
        v = (np.cos(turn) * y - np.sin(turn) * x) / stretch
        power = 1.0 if rng.random() < 0.3 else 2.0
        distance = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
        mask = np.clip(radius - distance + 0.5, 0, 1)[..., None]
        leaf = textures[int(rng.integers(4))] * rng.uniform(0.3, 1.3)
        leaf = leaf + 0.4 * (u / side)[..., None]
        canvas = canvas * (1 - mask) + leaf * mask
    return (np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def stamp_collage(rng: np.random.Generator, side: int, stamps: list[Path]) -> ImageArray:
    """Paste 4 to 14 cut-out pictures on a texture; `(side, side, 3)` uint8."""
    ground = _texture(rng, side)
    if rng.random() < 0.5:
        ground = ndimage.gaussian_filter(ground, (8, 8, 0))
    canvas = Image.fromarray((np.clip(ground, 0, 1) * 255).astype(np.uint8))
    for _ in range(int(rng.integers(4, 15))):
        stamp = Image.open(stamps[int(rng.integers(len(stamps)))]).convert("RGBA")
        longest = int(rng.uniform(0.2, 0.7) * side)
        stamp.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        if rng.random() < 0.5:
            stamp = ImageOps.mirror(stamp)
        place = (int(rng.integers(-longest // 3, side)), int(rng.integers(-longest // 3, side)))
        canvas.paste(stamp, place, stamp)
    return np.asarray(canvas)
