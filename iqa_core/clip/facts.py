"""Facts of a model that need no loading: those of ``tiny``, and those remembered from an earlier load.

A run with nothing to do compares fingerprints and nothing else, which takes the model's digest but no
weights. Facts are remembered in the user's cache folder, one small JSON file a model, and hold for as long
as the files that they came from have the same size and time of change. Whoever computes with the
model loads it, and trusts the loaded one (:meth:`ModelFacts.of`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_core.clip.file_state import FileState
from iqa_core.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.clip.encoder import Resolution, Towers

__all__ = ["TINY_FACTS", "ModelFacts", "known_facts", "remember_facts", "with_absolute_file"]

#: Increased whenever facts get other fields or meanings.
_FORMAT = 1
_TINY = "tiny"
#: Facts of ``tiny``.
TINY_FACTS = Path(__file__).parents[1] / "weights" / "tiny.facts.json"
_FOLDER = "distributed-iqa/models"
_PACKAGES = ("distributed-iqa", "open_clip_torch")


@dataclass(frozen=True)
class ModelFacts:
    """What a run's fingerprint and columns take from a model. See :class:`iqa_core.clip.encoder.Towers`.

    Attributes:
        name: The ``--model`` text.
        digest: SHA-256 (hex) of all weights.
        quick_gelu: Whether the activation is QuickGELU.
        preprocess: How images are resized and normalised.
        width: Width D of the features.
        logit_scale: Factor g on cosine differences.
    """

    name: str
    digest: str
    quick_gelu: bool
    preprocess: Preprocess
    width: int
    logit_scale: float

    @classmethod
    def of(cls, towers: Towers) -> ModelFacts:
        """Return the facts of a loaded model."""
        return cls(
            name=towers.name,
            digest=towers.digest,
            quick_gelu=towers.quick_gelu,
            preprocess=towers.preprocess,
            width=towers.image.width,
            logit_scale=towers.logit_scale,
        )

    @classmethod
    def from_json(cls, name: str, values: Mapping[str, Any]) -> ModelFacts:
        """Return the facts that :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: If they are of another form.
        """
        stored = dict(values["preprocess"])
        pairs = {key: tuple(stored[key]) for key in ("size", "mean", "std")}
        return cls(
            name=name,
            digest=str(values["digest"]),
            quick_gelu=bool(values["quick_gelu"]),
            preprocess=Preprocess(**{**stored, **pairs}),
            width=int(values["width"]),
            logit_scale=float(values["logit_scale"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON holds them, without the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


def known_facts(model: str, resolution: Resolution) -> ModelFacts | None:
    """Return the facts of a model without loading it; None if they are not known.

    Args:
        model: ``--model``.
        resolution: ``--resolution``; that a model takes it was found out by loading it.
    """
    try:
        if model == _TINY:
            return ModelFacts.from_json(model, json.loads(TINY_FACTS.read_bytes()))
        path, key = _place(model, resolution)
        entry = json.loads(path.read_bytes())
        files = [FileState(*state) for state in entry["files"]]
        if entry["key"] != key or not files or files != [FileState.of(f.path) for f in files]:
            return None
        return ModelFacts.from_json(model, entry["facts"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return None  # there is none, or it is damaged


def remember_facts(towers: Towers, resolution: Resolution) -> None:
    """Keep the facts of a loaded model for :func:`known_facts`; do nothing where that is not possible.

    Args:
        towers: The model. Without ``files``, nothing is kept.
        resolution: The resolution that it was loaded for.
    """
    if not towers.files:
        return
    with suppress(OSError, RuntimeError):  # no home, a read-only or a full one
        path, key = _place(towers.name, resolution)
        facts = ModelFacts.of(towers).to_json()
        text = json.dumps({"key": key, "files": towers.files, "facts": facts}, indent=1)
        if not path.is_file() or path.read_bytes() != text.encode():
            _write(path, text)


def with_absolute_file(model: str) -> str:
    """Return ``--model NAME@FILE`` with the file's absolute path, which is valid in any working folder.

    Args:
        model: ``--model`` of any form.

    Raises:
        RuntimeError: If the file is in the home folder, and there is none.
    """
    name, at, file = model.partition("@")
    return f"{name}@{Path(file).expanduser().absolute()}" if at and ":" not in name else model


def _place(model: str, resolution: Resolution) -> tuple[Path, dict[str, Any]]:
    """Return the file of a model's facts, and what they depend on beside the files of weights."""
    model = with_absolute_file(model)
    key = {
        "format": _FORMAT,
        "model": model,
        "resolution": resolution,
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, _FOLDER, f"{digest[:32]}.json"), key


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # not installed, but run from its source
        return None


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all; several processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
