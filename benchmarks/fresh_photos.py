r"""Photographs that nothing in this project was made with: for benchmarks whose protocol comes first.

Neither `tiny` nor a choice of a setting has seen them. They come from packages that carry photographs as
examples; each was checked by eye. None of them is in this repository. To unpack them into `fresh/`:

    cd fresh
    for p in admin-lte@3.2.0 soft-ui-dashboard@1.0.1 vegas@3.0.0 exif-js@2.3.0 flexslider@2.7.2 \
            jquery-backstretch@2.1.18 jquery-colorbox@1.6.4 jquery-zoom@1.7.22; do
        f=$(npm pack --silent "$p"); mkdir "npm-${f%.tgz}"; tar xzf "$f" -C "npm-${f%.tgz}"
    done
    pip download --no-deps --dest . gradio==6.31.0 imgaug==0.4.0 ultralytics==8.4.190
    for w in *.whl; do mkdir "pypi-${w%%-py*}"; unzip -q "$w" -d "pypi-${w%%-py*}"; done
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["fresh_photos"]

_LONGEST = 480  # pixels on the longer side: what is tested is the model's 224-pixel view

#: Folder of a package, its photographs' folder, and their names.
_PHOTOS = (
    ("npm-admin-lte-3.2.0", "package/dist/img", "photo1.png photo2.png photo3.jpg photo4.jpg"),
    (
        "npm-soft-ui-dashboard-1.0.1",
        "package/assets/img",
        "home-decor-1.jpg home-decor-2.jpg home-decor-3.jpg ivancik.jpg marie.jpg",
    ),
    (
        "npm-vegas-3.0.0",
        "package/tests/assets",
        "unsplash1.jpg unsplash2.jpg unsplash4.jpg unsplash5.jpg",
    ),
    (
        "npm-exif-js-2.3.0",
        "package/example",
        "Bloated-Hero.jpg Bush-dog.jpg DSCN0614_small.jpg dsc_09827.jpg",
    ),
    (
        "npm-flexslider-2.7.2",
        "package/demo/images",
        "kitchen_adventurer_caramel.jpg kitchen_adventurer_cheesecake_brownie.jpg "
        "kitchen_adventurer_donut.jpg kitchen_adventurer_lemon.jpg",
    ),
    (
        "npm-jquery-backstretch-2.1.18",
        "package/examples",
        "coffee.jpg dome.jpg pot-holder.jpg sample1_1280.jpg sample2_1280.jpg",
    ),
    ("npm-jquery-colorbox-1.6.4", "package/content", "daisy@2x.jpg ohoopee1.jpg ohoopee3.jpg"),
    ("npm-jquery-zoom-1.7.22", "package", "daisy.jpg roxy.jpg"),
    ("pypi-gradio-6.31.0", "gradio/media_assets/images", "tower.jpg"),
    ("pypi-imgaug-0.4.0", "imgaug", "quokka.jpg"),
    ("pypi-ultralytics-8.4.190", "ultralytics/assets", "bus.jpg zidane.jpg"),
)


def fresh_photos(root: Path) -> dict[str, np.ndarray]:
    """Return the photographs below a folder: name -> (H, W, 3) uint8 RGB, at most 480 pixels long.

    Args:
        root: Folder of the unpacked packages.

    Raises:
        FileNotFoundError: If one is missing.
    """
    photos = {}
    for package, folder, names in _PHOTOS:
        for name in names.split():
            with Image.open(root / package / folder / name) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
            image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
            photos[f"{package}/{name}"] = np.asarray(image)
    return photos
