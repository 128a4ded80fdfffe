"""Base prompts: antonym pairs such as "Good photo." / "Bad photo.", in named sets or a user's file.

Sources of the named sets:
    ``clip-iqa``, ``attributes``: Wang, Chan, Loy, "Exploring CLIP for Assessing the Look and Feel
    of Images", AAAI 2023, https://arxiv.org/abs/2207.12396, sections 3 and 4.
    ``pyiqa``: the five pairs that pyiqa's ``clipiqa`` averages (``clipiqa_arch.py``).
    ``quality``: this project's own.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from iqa_core.errors import InputError
from iqa_core.storage.encodings import find_encoding

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_PAIRS", "NAMED_PAIRS", "PromptPair", "load_pairs"]


@dataclass(frozen=True)
class PromptPair:
    """Two prompts of opposite meaning. The score is high where the positive one fits better.

    Attributes:
        name: What the pair measures; the name of its field in the output.
        positive: The prompt of a high score.
        negative: Its antonym.
    """

    name: str
    positive: str
    negative: str

    def __post_init__(self) -> None:
        """Check that all three are non-empty and the prompts differ."""
        for field, value in vars(self).items():
            if not isinstance(value, str) or not value.strip():
                raise InputError(
                    f"{field} of a prompt pair is {value!r}, but must be a text that is not empty: "
                    f'write {field} = "..." in the [[pair]] table'
                )
        if self.positive == self.negative:
            raise InputError(
                f"pair {self.name!r} has {self.positive!r} on both sides, which scores every image "
                "0.5: give two prompts of opposite meaning"
            )


def _pairs(*rows: tuple[str, str, str]) -> tuple[PromptPair, ...]:
    return tuple(PromptPair(*row) for row in rows)


#: The named sets of ``--pairs``.
NAMED_PAIRS: Mapping[str, tuple[PromptPair, ...]] = MappingProxyType(
    {
        "clip-iqa": _pairs(("quality", "Good photo.", "Bad photo.")),
        "pyiqa": _pairs(
            ("good", "Good image", "bad image"),
            ("sharp", "Sharp image", "blurry image"),
            ("edges", "sharp edges", "blurry edges"),
            ("resolution", "High resolution image", "low resolution image"),
            ("noise_free", "Noise-free image", "noisy image"),
        ),
        "attributes": _pairs(
            ("quality", "Good photo.", "Bad photo."),
            ("brightness", "Bright photo.", "Dark photo."),
            ("noisiness", "Clean photo.", "Noisy photo."),
            ("colorfulness", "Colorful photo.", "Dull photo."),
            ("sharpness", "Sharp photo.", "Blurry photo."),
            ("contrast", "High contrast photo.", "Low contrast photo."),
            ("complexity", "Complex photo.", "Simple photo."),
            ("naturalness", "Natural photo.", "Synthetic photo."),
            ("happiness", "Happy photo.", "Sad photo."),
            ("scariness", "Scary photo.", "Peaceful photo."),
            ("newness", "New photo.", "Old photo."),
            ("warmth", "Warm photo.", "Cold photo."),
            ("realism", "Real photo.", "Abstract photo."),
            ("beauty", "Beautiful photo.", "Ugly photo."),
            ("loneliness", "Lonely photo.", "Sociable photo."),
            ("relaxation", "Relaxing photo.", "Stressful photo."),
        ),
        "quality": _pairs(
            ("quality", "a photo of high quality", "a photo of low quality"),
            ("good", "a good photo", "a bad photo"),
            ("sharpness", "a sharp photo with crisp details", "a blurry photo without details"),
            ("focus", "a photo in focus", "a photo out of focus"),
            ("noise", "a clean photo without noise", "a grainy, noisy photo"),
            ("compression", "a photo without artifacts", "a photo with compression artifacts"),
            ("exposure", "a well exposed photo", "a badly exposed photo"),
            ("contrast", "a photo with good contrast", "a flat, washed out photo"),
            ("color", "a photo with natural colors", "a photo with distorted colors"),
            ("resolution", "a high resolution photo", "a low resolution, pixelated photo"),
        ),
    }
)

DEFAULT_PAIRS = "quality"


def load_pairs(source: str | Path) -> tuple[PromptPair, ...]:
    """Return the pairs of a named set or of a user's TOML file.

    Args:
        source: A name of :data:`NAMED_PAIRS`, or the path of a TOML file with one ``[[pair]]``
            table for each pair, holding ``name``, ``positive`` and ``negative``.

    Returns:
        The pairs in their order, with distinct names.

    Raises:
        InputError: If there is no such set or file, or the file is not of this form.
    """
    if str(source) in NAMED_PAIRS:
        return NAMED_PAIRS[str(source)]
    path = Path(source)
    if not path.is_file():
        raise InputError(
            f"--pairs {str(source)!r} is neither a named set ({', '.join(NAMED_PAIRS)}) nor a "
            "file: choose one of these names, or give the path of a TOML file with [[pair]] tables"
        )
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"--pairs {path} is not valid TOML: {error}") from error
    return _parse_pairs(document, path)


def _read_text(path: Path) -> str:
    """Return a file's text: UTF-8, with a byte order mark or not, or UTF-16 as PowerShell writes it."""
    data = path.read_bytes()
    try:
        encoding = find_encoding(data)
    except ValueError as error:
        raise InputError(f"--pairs {path} is not valid TOML: it {error}") from error
    if not encoding.startswith("utf"):
        raise InputError(
            f"--pairs {path} is not valid TOML: it is no UTF-8, but {encoding} as it seems: save it as "
            "UTF-8"
        )
    return data.decode(encoding).lstrip("\ufeff").replace("\r\n", "\n")


def _parse_pairs(document: dict[str, Any], path: Path) -> tuple[PromptPair, ...]:
    tables = document.get("pair")
    unknown = sorted(set(document) - {"pair"})
    if not isinstance(tables, list) or not tables or unknown:
        found = f"the keys {unknown}" if unknown else "no [[pair]] table"
        raise InputError(
            f"--pairs {path} has {found}, but must hold [[pair]] tables with name, positive and "
            "negative, and nothing else"
        )
    wanted = {"name", "positive", "negative"}
    pairs = []
    for number, table in enumerate(tables, start=1):
        if not isinstance(table, dict) or set(table) != wanted:
            keys = sorted(table) if isinstance(table, dict) else table
            raise InputError(
                f"[[pair]] table {number} of {path} has {keys}, but must have exactly name, "
                "positive and negative"
            )
        pairs.append(PromptPair(**table))
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if twice:
        raise InputError(f"{path} has the pair name {twice[0]!r} twice: names must be distinct")
    return tuple(pairs)
