"""Scores images in this process, without Ray: :class:`Scorer`, for notebooks and small sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image

from iqa_core.clip.load import TINY, load_towers
from iqa_core.columns import NO_FINITE_SCORE
from iqa_core.errors import ImageError, InputError, Status
from iqa_core.images.decode import decode_image, prepare_image
from iqa_core.limits import DEFAULT_MAX_PIXELS
from iqa_core.prompts.file import load_prompts
from iqa_core.prompts.pairs import DEFAULT_PAIRS, PromptPair, load_pairs
from iqa_core.redaction import error_line
from iqa_core.scoring.encode import encode_images
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import score_features

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pandas as pd

    from iqa_core.clip.encoder import ImageEncoder, Precision, Resolution

    ImageLike = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

__all__ = ["Scorer", "Scores"]


@dataclass(frozen=True)
class Scores:
    """Scores of N images by P prompt pairs.

    Attributes:
        score: (N,) float32 in [0, 1], the mean over pairs.
        scores: (N, P) float32 in [0, 1].
        margins: (N, P) float32 logit margins.
        features: (N, D) float32 unit image features.
        names: The P pairs' names.
        errors: What is wrong with an image, by position; its numbers are NaN.
    """

    score: np.ndarray
    scores: np.ndarray
    margins: np.ndarray
    features: np.ndarray
    names: tuple[str, ...]
    errors: dict[int, ImageError]

    def to_pandas(self) -> pd.DataFrame:
        """Return a frame of N rows with ``score`` and one column for each pair."""
        import pandas as pd

        pairs = {f"scores.{name}": self.scores[:, i] for i, name in enumerate(self.names)}
        return pd.DataFrame({"score": self.score, **pairs})


class Scorer:
    """Scores images in this process, without Ray: for notebooks and small sets.

    The same towers, prompts and preprocessing as ``iqa score``, so the same scores.

    Args:
        model: See :func:`iqa_core.clip.load.load_towers`.
        pairs: A named set, the path of a TOML file, or pairs; not beside ``prompts``.
        resolution: ``model`` resizes to the tower's input; ``native`` keeps the size, which only
            ResNets can.
        device: ``cpu``, ``cuda``, ...; None takes a GPU where there is one.
        precision: ``auto`` is fp16 on a GPU and fp32 on a CPU.
        decode: ``fast`` may use JPEG's scaled decoding, ``exact`` equals open_clip's own transform.
        logit_scale: Factor on cosine differences; None takes the model's own.
        batch_size: Images in memory and in one forward pass.
        max_pixels: Limit on an image's size in pixels.
        prompts: The path of a file of ``iqa train``, learned for this model.

    Raises:
        InputError: If an argument is not usable, or the prompts were learned for other weights.
    """

    def __init__(
        self,
        model: str = TINY,
        pairs: str | Path | Sequence[PromptPair] = DEFAULT_PAIRS,
        *,
        resolution: Resolution = "model",
        device: str | None = None,
        precision: Precision = "auto",
        decode: Literal["fast", "exact"] = "fast",
        logit_scale: float | None = None,
        batch_size: int = 32,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        prompts: str | Path | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(
                argument="batch_size",
                value=batch_size,
                limit="at least 1",
                fix="leave it out for 32",
            )
        _check_choice("decode", decode, ("fast", "exact"))
        if prompts is not None and pairs is not DEFAULT_PAIRS:
            raise InputError(
                "pairs and prompts are both given: learned prompts bring their own pairs, so leave out "
                "pairs"
            )
        table = load_pairs(pairs) if isinstance(pairs, (str, Path)) else tuple(pairs)
        for pair in table:
            if not isinstance(pair, PromptPair):
                raise InputError(
                    f"a prompt pair is {pair!r}, but must be a PromptPair: PromptPair(name, positive, "
                    "negative)"
                )
        towers = load_towers(model, resolution)
        if prompts is None:
            self.prompts = encode_prompts(towers, table, logit_scale)
        else:
            learned = load_prompts(prompts, towers).features
            self.prompts = replace(learned, logit_scale=logit_scale or learned.logit_scale)
        self.width = towers.image.width
        self.tower: ImageEncoder = _on_device(towers.image, device, precision)
        self.preprocess = towers.preprocess if resolution == "model" else None
        self.decode = decode
        self.batch_size = batch_size
        self.max_pixels = max_pixels

    def score(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        on_error: Literal["raise", "nan"] = "raise",
    ) -> Scores:
        """Score one image or many.

        Args:
            images: A path, encoded bytes, a PIL image, an (H, W, 3) or (H, W) uint8 array,
                or a list of these.
            on_error: ``raise`` on the first image that can't be scored, or ``nan`` to
                continue, with NaN and an entry in ``errors`` for it.

        Returns:
            The scores, always with a first dimension of N, also for one image.

        Raises:
            ImageError: If an image can't be read or scored and ``on_error`` is ``raise``.
            InputError: If an image is of a wrong type, whatever ``on_error`` is, or that is neither.
        """
        _check_choice("on_error", on_error, ("raise", "nan"))
        many = isinstance(images, (list, tuple))
        items: Sequence[ImageLike] = images if many else [images]  # type: ignore[assignment, list-item]
        parts: list[np.ndarray] = []
        errors: dict[int, ImageError] = {}
        for start in range(0, len(items), self.batch_size):
            features, failed = self._encode(items[start : start + self.batch_size])
            for place in np.flatnonzero(np.isnan(score_features(features, self.prompts)[2])):
                # Nothing is without a finite score and without an error.
                failed.setdefault(int(place), ImageError(Status.MODEL_ERROR, NO_FINITE_SCORE))
                features[place] = np.nan
            if failed and on_error == "raise":
                position, error = min(failed.items())
                where = f"image {start + position}: " if many else ""
                raise ImageError(error.status, f"{where}{error.message}")
            errors.update({start + position: error for position, error in failed.items()})
            parts.append(features)
        features = np.concatenate([*parts, np.empty((0, self.width), dtype=np.float32)])
        margin, scores, score = score_features(features, self.prompts)
        return Scores(score, scores, margin, features, self.prompts.names, errors)

    def _encode(self, items: Sequence[ImageLike]) -> tuple[np.ndarray, dict[int, ImageError]]:
        pixels: list[np.ndarray] = []
        places: list[int] = []
        errors: dict[int, ImageError] = {}
        for place, item in enumerate(items):
            try:
                pixels.append(self._pixels(item))
                places.append(place)
            except ImageError as error:
                errors[place] = error
        encoded, failed = encode_images(self.tower.encode, pixels, self.width)
        features = np.full((len(items), self.width), np.nan, dtype=np.float32)
        features[places] = encoded
        for position, reason in failed.items():
            errors[places[position]] = ImageError(Status.MODEL_ERROR, reason)
        return features, errors

    def _pixels(self, item: ImageLike) -> np.ndarray:
        if isinstance(item, np.ndarray):
            if item.dtype != np.uint8 or not (item.ndim == 2 or item.shape[2:] == (3,)):
                raise InputError(
                    f"an image array has shape {item.shape} and type {item.dtype}, but must be "
                    "(H, W, 3) or (H, W) of uint8: multiply floats in [0, 1] by 255 and cast, "
                    "and give several images as a list"
                )
            item = Image.fromarray(item)
        if isinstance(item, Image.Image):
            if 0 in item.size:
                raise ImageError(Status.EMPTY, f"the image has {item.width} x {item.height} pixels")
            return prepare_image(
                item, self.preprocess, mode=self.decode, max_pixels=self.max_pixels
            ).pixels
        if not isinstance(item, (str, bytes, Path)) and not hasattr(item, "__fspath__"):
            raise InputError(
                f"an image is a {type(item).__name__}, but must be a path, bytes, a PIL image or a "
                "uint8 array"
            )
        data = item if isinstance(item, bytes) else _read(Path(item))
        return decode_image(
            data, self.preprocess, mode=self.decode, max_pixels=self.max_pixels
        ).pixels


def _check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of some choices, of which the first is the default."""
    if value not in choices:
        limit = f"one of {', '.join(choices)}"
        fix = f"leave it out for {choices[0]}"
        raise InputError(argument=argument, value=value, limit=limit, fix=fix)


def _on_device(tower: ImageEncoder, device: str | None, precision: Precision) -> ImageEncoder:
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return tower.to_device(name, precision)
    except (RuntimeError, AssertionError) as error:  # how torch says that it has no such device
        raise InputError(
            argument="device",
            value=name,
            limit=f"a device that torch has here ({error_line(error)})",
            fix="leave it out for a GPU where there is one, or give cpu",
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        status = Status.UNSUPPORTED  # a folder, for one
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            status = Status.NOT_FOUND
        elif isinstance(error, PermissionError):
            status = Status.FORBIDDEN
        raise ImageError(status, f"{type(error).__name__}: {error}") from error
