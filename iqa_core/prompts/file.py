"""The file of learned prompts: what scoring needs, how the prompts were made, and nothing that can run.

A safetensors file (https://huggingface.co/docs/safetensors) with two float32 tensors, ``context``
and ``features``, and one metadata entry, a JSON document with everything else. One entry, because
safetensors does not keep several in order: the same prompts give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import safetensors
import safetensors.numpy

from iqa_core.clip.encoder import MAX_LOGIT_SCALE
from iqa_core.errors import InputError
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import PromptFeatures
from iqa_core.storage.folder import Folder, has_scheme

if TYPE_CHECKING:
    from iqa_core.clip.encoder import Towers
    from iqa_core.clip.facts import ModelFacts

__all__ = ["FORMAT", "ContextKind", "LearnedPrompts", "Position", "load_prompts", "save_prompts"]

Position = Literal["front", "end", "middle"]
ContextKind = Literal["shared", "per-side"]

#: The version of the format that is written; older ones are read.
FORMAT = 1

_SUFFIX = ".safetensors"
_KEY = "iqa_prompts"


@dataclass(frozen=True, eq=False)
class LearnedPrompts:
    """Learned prompts and how they were made.

    Attributes:
        model: The ``--model`` text of the CLIP they were learned for; ``tower`` in the file.
        weights_digest: SHA-256 (hex) of its weights.
        quick_gelu: Whether its activation was QuickGELU.
        pairs: The P base prompt pairs.
        position: See :class:`iqa_core.prompts.learner.PromptLearner`.
        kind: ``shared`` or ``per-side``.
        context: (M, width) or (2, M, width) float32.
        text_features: (P, 2, D) float32 of length 1; side 0 is the positive prompt.
        logit_scale: The factor g on cosine differences.
        nearest_words: For each context vector the nearest tokens and their distances.
        training: The training's configuration, as JSON holds it.
        metrics: What was measured, as JSON holds it, such as ``{"teacher": {"srcc": 0.7},
            "student": {"srcc": 0.8}}``.

    Raises:
        InputError: If the parts don't fit each other.
    """

    model: str
    weights_digest: str
    quick_gelu: bool
    pairs: tuple[PromptPair, ...]
    position: Position
    kind: ContextKind
    context: np.ndarray
    text_features: np.ndarray
    logit_scale: float
    nearest_words: list[list[tuple[str, float]]] = field(default_factory=list)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that shapes, names and numbers fit each other."""
        for problem, text in (
            (self.position not in get_args(Position), f"position {self.position!r} is unknown"),
            (self.kind not in get_args(ContextKind), f"context kind {self.kind!r} is unknown"),
            (
                self.context.ndim != {"shared": 2, "per-side": 3}.get(self.kind)
                or (self.kind == "per-side" and len(self.context) != 2),
                f"a context of shape {self.context.shape} is not {self.kind}",
            ),
            (
                self.text_features.ndim != 3
                or self.text_features.shape[:2] != (len(self.pairs), 2)
                or not self.pairs,
                f"features of shape {self.text_features.shape} do not belong to "
                f"{len(self.pairs)} pairs",
            ),
            (
                len({pair.name for pair in self.pairs}) < len(self.pairs),
                "two pairs have the same name",
            ),
            (
                {self.context.dtype, self.text_features.dtype} != {np.dtype(np.float32)},
                "context and features are not float32",
            ),
            (
                not 0 < self.logit_scale <= MAX_LOGIT_SCALE,
                f"logit scale {self.logit_scale} is not a number above 0 and at most "
                f"{MAX_LOGIT_SCALE:g}",
            ),
            (not np.isfinite(self.context).all(), "the context is not finite"),
            (not np.isfinite(self.text_features).all(), "features are not finite"),
            (
                not np.allclose(np.linalg.norm(self.text_features, axis=-1), 1, atol=1e-3),
                "features are not of length 1",
            ),
        ):
            if problem:
                raise InputError(f"learned prompts don't fit together: {text}")

    @property
    def features(self) -> PromptFeatures:
        """What scoring needs: no text tower."""
        source = [
            self.weights_digest,
            self.quick_gelu,
            self.logit_scale,
            [asdict(pair) for pair in self.pairs],
        ]
        stored = np.ascontiguousarray(self.text_features, dtype="<f4").tobytes()
        return PromptFeatures(
            names=tuple(pair.name for pair in self.pairs),
            features=self.text_features,
            logit_scale=self.logit_scale,
            # The stored features are the source here: they are the same on every machine.
            digest=hashlib.sha256(json.dumps(source).encode() + stored).hexdigest(),
        )

    def check(self, towers: Towers | ModelFacts) -> None:
        """Refuse towers other than those that the prompts were learned for, by their facts.

        Raises:
            InputError: If the weights or the activation are others.
        """
        if towers.digest != self.weights_digest:
            raise InputError(
                f"the prompts were learned for --model {self.model} (weights "
                f"{self.weights_digest[:12]}), but --model {towers.name} has the weights "
                f"{towers.digest[:12]}: score with --model {self.model}, or learn prompts for "
                f"{towers.name}"
            )
        if towers.quick_gelu != self.quick_gelu:
            raise InputError(
                f"the prompts were learned for --model {self.model} "
                f"{'with' if self.quick_gelu else 'without'} QuickGELU, but --model {towers.name} "
                f"runs the same weights {'with' if towers.quick_gelu else 'without'} it: score with "
                f"--model {self.model}"
            )


def save_prompts(path: str | Path, prompts: LearnedPrompts) -> None:
    """Write a prompt file, whole or not at all. The same prompts give the same bytes.

    Args:
        path: Where to; a path or URI that ends in ``.safetensors``.
        prompts: What to write. In ``training`` and ``metrics``, numbers that are not finite become
            null, and what JSON does not hold becomes its text.

    Raises:
        InputError: If the path does not end in ``.safetensors``.
        OSError: If it can't be written.
    """
    folder, name = _split(path)
    if not name.endswith(_SUFFIX):
        raise InputError(f"prompt file {path} must be named *{_SUFFIX}: add it to the name")
    document = {
        "format": FORMAT,
        "tower": prompts.model,
        "weights_digest": prompts.weights_digest,
        "quick_gelu": prompts.quick_gelu,
        "pairs": [asdict(pair) for pair in prompts.pairs],
        "position": prompts.position,
        "kind": prompts.kind,
        "context_length": prompts.context.shape[-2],
        "logit_scale": prompts.logit_scale,
        "nearest_words": prompts.nearest_words,
        "training": prompts.training,
        "metrics": prompts.metrics,
    }
    text = json.dumps(_plain(document), sort_keys=True, allow_nan=False)
    tensors = {
        "context": np.ascontiguousarray(prompts.context),
        "features": np.ascontiguousarray(prompts.text_features),
    }
    folder.write(name, safetensors.numpy.save(tensors, metadata={_KEY: text}))


def load_prompts(path: str | Path, towers: Towers | ModelFacts | None = None) -> LearnedPrompts:
    """Read a prompt file.

    Args:
        path: A path or URI.
        towers: The CLIP to score with or its facts, to be checked; None leaves that to
            :meth:`LearnedPrompts.check`.

    Returns:
        The prompts.

    Raises:
        InputError: If there is no such file, it is no prompt file, its format is newer than this
            version's, its parts don't fit each other, or it belongs to other towers.
    """
    folder, name = _split(path)
    try:
        data = folder.read(name)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"prompt file {path}: there is no such file: check the path") from error
    try:
        prompts = _parse(data)
        if towers is not None:
            prompts.check(towers)
    except InputError as error:
        raise InputError(f"prompt file {path}: {error.on_command_line()}") from error
    return prompts


def _parse(data: bytes) -> LearnedPrompts:
    try:
        tensors = safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        # Asked only now: a sound file may begin with these bytes too, they are its header's length.
        if data.startswith((b"PK\x03\x04", b"\x80")):  # torch.save, now and formerly
            raise InputError(
                "this is a pickle, which can run code when it is opened, so it isn't: give a "
                f"*{_SUFFIX} file, as iqa train writes it"
            ) from error
        raise InputError(
            f"this is not a whole safetensors file ({error}): copy it again"
        ) from error
    # The header, which safetensors has just found to be in order.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = header.get("__metadata__", {}).get(_KEY)
    if text is None:
        raise InputError(
            "this safetensors file holds no learned prompts (weights go with --model NAME@FILE): "
            "give one that iqa train wrote"
        )
    try:
        document = json.loads(text)
        version = document["format"]
        if version > FORMAT:
            raise InputError(
                f"its format is {version}, but this version reads up to {FORMAT}: upgrade "
                "distributed-iqa"
            )
        return LearnedPrompts(
            model=str(document["tower"]),
            weights_digest=str(document["weights_digest"]),
            quick_gelu=bool(document["quick_gelu"]),
            pairs=tuple(PromptPair(**pair) for pair in document["pairs"]),
            position=document["position"],
            kind=document["kind"],
            context=tensors["context"].copy(),  # as loaded, it is read-only
            text_features=tensors["features"].copy(),
            logit_scale=float(document["logit_scale"]),
            nearest_words=[
                [(str(word), float(distance)) for word, distance in words]
                for words in document["nearest_words"]
            ],
            training=dict(document["training"]),
            metrics=dict(document["metrics"]),
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"it is not as iqa train writes it ({type(error).__name__}: {error}): learn the "
            "prompts again"
        ) from error


def _split(path: str | Path) -> tuple[Folder, str]:
    if has_scheme(str(path)):
        parent, _, name = str(path).rpartition("/")
        return Folder.of(parent), name
    return Folder.of(str(Path(path).parent)), Path(path).name


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    """Return a value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
