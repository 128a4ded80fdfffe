"""From image and text features to scores, and :class:`Scorer`, which does it all for a notebook.

Sources:
    Wang, Chan, Loy, "Exploring CLIP for Assessing the Look and Feel of Images", AAAI 2023,
    https://arxiv.org/abs/2207.12396. What differs: several pairs are averaged, and the two-way
    softmax is computed as the sigmoid of the logit margin, which is the same number but does not
    saturate before the ranking losses see it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image

from iqa_core.clip.load import TINY, Precision, Resolution, Towers, load_towers
from iqa_core.clip.weight_checks import MAX_LOGIT_SCALE
from iqa_core.columns import NO_FINITE_SCORE
from iqa_core.errors import ImageError, InputError, Status
from iqa_core.images.decode import DEFAULT_MAX_PIXELS, decode_image, prepare_image
from iqa_core.prompts.pairs import DEFAULT_PAIRS, PromptPair, load_pairs

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import pandas as pd

    from iqa_core.clip.load import ImageTower

    ImageLike = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

__all__ = [
    "DEFAULT_PIXEL_BUDGET",
    "PromptFeatures",
    "Scorer",
    "Scores",
    "encode_images",
    "encode_prompts",
    "image_scores",
    "margins",
    "pair_scores",
    "score_features",
]

#: Pixels in one forward pass at native resolution: 16 images of one megapixel.
DEFAULT_PIXEL_BUDGET = 16 * 1024 * 1024
#: How far the square of a length may be from 1: bfloat16 rounds that much, and twice.
_LENGTH_TOLERANCE = 0.02


@dataclass(frozen=True)
class PromptFeatures:
    """What scoring needs to know of the prompts: no text tower.

    Attributes:
        names: The P pairs' names.
        features: (P, 2, D) float32 unit text features; side 0 is the positive prompt.
        logit_scale: The factor g on cosine differences.
        digest: SHA-256 (hex) of what the features were made from, for the run's fingerprint. Not
            of the features, whose last bits are those of the processor that computed them.
    """

    names: tuple[str, ...]
    features: np.ndarray
    logit_scale: float
    digest: str

    def __post_init__(self) -> None:
        """Refuse numbers that would make scores not-a-number.

        Raises:
            InputError: If a feature is not finite or not of length 1, or the scale is not above 0
                or so large that margins overflow.
        """
        wrong = _not_unit(self.features).any(axis=1)
        if wrong.any():
            raise InputError(
                f"the text features of prompt pair {self.names[int(wrong.argmax())]!r} are not finite "
                "numbers of length 1: use other prompts, or another --model"
            )
        if not 0 < self.logit_scale <= MAX_LOGIT_SCALE:
            raise InputError(
                f"the logit scale {self.logit_scale:g} must be above 0 and at most "
                f"{MAX_LOGIT_SCALE:g}, so that margins are finite: give a smaller --logit-scale"
            )


def encode_prompts(
    towers: Towers, pairs: Sequence[PromptPair], logit_scale: float | None = None
) -> PromptFeatures:
    """Encode base prompts with a text tower.

    Args:
        towers: The CLIP whose text tower is used.
        pairs: P base prompt pairs.
        logit_scale: Factor on cosine differences, above 0; None takes the model's own.

    Returns:
        The features of the P pairs.

    Raises:
        InputError: If the scale is not above 0, there is no pair, two have the same name, a prompt
            is too long, or the text tower returns no finite features for it.
    """
    names = tuple(pair.name for pair in pairs)
    if not names or len(set(names)) < len(names):
        raise InputError(f"prompt pairs are named {list(names)}: give one or more, named apart")
    if logit_scale is not None and not (0 < logit_scale < float("inf")):
        raise InputError(
            f"--logit-scale {logit_scale} must be a finite number above 0: leave it out for the "
            "model's own, or give 1 for plain cosines"
        )
    texts = [side for pair in pairs for side in (pair.positive, pair.negative)]
    features = towers.text.encode(texts).reshape(len(pairs), 2, -1).numpy()
    table = [[pair.name, pair.positive, pair.negative] for pair in pairs]
    source = [towers.digest, towers.quick_gelu, logit_scale, table]
    return PromptFeatures(
        names=names,
        features=features,
        logit_scale=towers.logit_scale if logit_scale is None else float(logit_scale),
        digest=hashlib.sha256(json.dumps(source).encode()).hexdigest(),
    )


def margins(features: np.ndarray, prompts: PromptFeatures) -> np.ndarray:
    """Return the logit margins g * (<f_i, z_p0> - <f_i, z_p1>).

    Args:
        features: (N, D) unit image features of any float type.
        prompts: P pairs of width D.

    Returns:
        (N, P) float32.
    """
    # The difference first: subtracting two large, nearly equal logits would lose digits.
    directions = prompts.features[:, 0].astype(np.float64) - prompts.features[:, 1]
    scaled: np.ndarray = prompts.logit_scale * (
        features.astype(np.float64, copy=False) @ directions.T
    )
    return scaled.astype(np.float32)


def pair_scores(margin: np.ndarray) -> np.ndarray:
    """Return sigmoid(margin), the two-way softmax of CLIP-IQA, in [0, 1]; same shape, float32."""
    return torch.from_numpy(np.asarray(margin, dtype=np.float32)).sigmoid().numpy()


def image_scores(scores: np.ndarray) -> np.ndarray:
    """Return the mean over pairs of (N, P) pair scores: (N,) float32 in [0, 1]."""
    mean: np.ndarray = scores.mean(axis=1, dtype=np.float64)
    return mean.astype(np.float32)


def _not_unit(features: np.ndarray) -> np.ndarray:
    """Return which of (..., D) features are not finite or not of length 1, but for rounding."""
    values = features.astype(np.float64, copy=False)
    off: np.ndarray = np.abs(np.einsum("...d,...d->...", values, values) - 1)
    wrong: np.ndarray = ~np.less(off, _LENGTH_TOLERANCE)  # also where it is NaN
    return wrong


def score_features(
    features: np.ndarray, prompts: PromptFeatures
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score image features, and no others: a row of zeros would score 0.5.

    Args:
        features: (N, D) of any float type.
        prompts: P pairs of width D.

    Returns:
        (N, P) margins, (N, P) pair scores and (N,) scores, all float32. All are NaN in rows whose
        features are not finite or not of length 1, or where a number is not finite.
    """
    usable = features.astype(np.float64)
    usable[_not_unit(usable)] = np.nan
    margin = margins(usable, prompts)
    margin = np.where(np.isfinite(margin).all(axis=1, keepdims=True), margin, np.float32(np.nan))
    scores = pair_scores(margin)
    return margin, scores, image_scores(scores)


def encode_images(
    encode: Callable[[np.ndarray], torch.Tensor],
    images: Sequence[np.ndarray],
    width: int,
    *,
    pixel_budget: int = DEFAULT_PIXEL_BUDGET,
) -> tuple[np.ndarray, dict[int, str]]:
    """Encode images of any sizes; one that the model can't do costs only itself.

    Images of equal size go through the tower together, up to ``pixel_budget`` (never padded: the
    attention would see the padding). A batch that fails is halved until the culprit is alone, which
    is also what an out-of-memory device needs.

    Args:
        encode: (N, H, W, 3) uint8 -> (N, D) float32 unit features; see
            :meth:`iqa_core.clip.load.ImageTower.encode`.
        images: N arrays of (H, W, 3) uint8.
        width: The feature width D.
        pixel_budget: Pixels in one forward pass, at least one image.

    Returns:
        (N, D) float32 features, NaN where the model failed, and what happened there by position.
    """
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        by_size[image.shape].append(position)
    features = np.full((len(images), width), np.nan, dtype=np.float32)
    errors: dict[int, str] = {}
    for shape, positions in by_size.items():
        step = max(1, pixel_budget // (shape[0] * shape[1]))
        for start in range(0, len(positions), step):
            _encode_or_halve(encode, images, positions[start : start + step], features, errors)
    return features, errors


def _encode_or_halve(
    encode: Callable[[np.ndarray], torch.Tensor],
    images: Sequence[np.ndarray],
    positions: Sequence[int],
    features: np.ndarray,
    errors: dict[int, str],
) -> None:
    try:
        encoded = encode(np.stack([images[position] for position in positions])).cpu().numpy()
    except Exception as error:  # whatever a model may raise
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        if len(positions) == 1:
            reason = " ".join(str(error).split()) or type(error).__name__
            errors[positions[0]] = f"{type(error).__name__}: {reason}"[:500]
            return
        half = len(positions) // 2
        _encode_or_halve(encode, images, positions[:half], features, errors)
        _encode_or_halve(encode, images, positions[half:], features, errors)
        return
    for position, feature in zip(positions, encoded, strict=True):
        if np.isfinite(feature).all():
            features[position] = feature
        else:
            errors[position] = "the image tower returned features that are not finite"


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
        pairs: A named set, the path of a TOML file, or pairs.
        resolution: ``model`` resizes to the tower's input; ``native`` keeps the size, which only
            ResNets can.
        device: ``cpu``, ``cuda``, ...; None takes a GPU where there is one.
        precision: ``auto`` is fp16 on a GPU and fp32 on a CPU.
        decode: ``fast`` may use JPEG's scaled decoding, ``exact`` equals open_clip's own transform.
        logit_scale: Factor on cosine differences; None takes the model's own.
        batch_size: Images in memory and in one forward pass.
        max_pixels: Limit on an image's size in pixels.

    Raises:
        InputError: If one of these is not what it may be.
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
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size ({batch_size}) must be at least 1")
        if decode not in ("fast", "exact"):
            raise InputError(f"--decode {decode!r} is none of fast, exact")
        table = load_pairs(pairs) if isinstance(pairs, (str, Path)) else tuple(pairs)
        towers = load_towers(model, resolution)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.prompts = encode_prompts(towers, table, logit_scale)
        self.width = self.prompts.features.shape[-1]
        self.tower: ImageTower = towers.image.to_device(device, precision)
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
            on_error: ``raise`` on the first image that can't be scored, or ``nan`` to go on and
                leave NaN and an entry in ``errors``.

        Returns:
            The scores, always with a first dimension of N, also for one image.

        Raises:
            ImageError: If an image can't be read or scored and ``on_error`` is ``raise``.
            InputError: If an image is of a wrong type, whatever ``on_error`` is.
        """
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
