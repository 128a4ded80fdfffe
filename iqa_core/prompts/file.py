"""The file of learned prompts: what scoring needs, how the prompts were made, and nothing that can run.

A safetensors file (https://huggingface.co/docs/safetensors) with the float32 tensors ``context`` and
``features``, ``weights`` where pairs are weighted, and one metadata entry, a JSON document with everything
else. One entry, because safetensors does not keep several in order: the same prompts give the same bytes.

Format 1 has one context and no weights: tensors (M, width) or (2, M, width), and (P, 2, D). Format 2 has a
first dimension for several contexts; it is written only where it is needed, so that older versions read all
that they can score with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from iqa_core.errors import InputError
from iqa_core.prompts.learned import ContextKind, LearnedPrompts, Position
from iqa_core.prompts.pairs import PromptPair
from iqa_core.storage.folder import Folder, has_scheme

if TYPE_CHECKING:
    from iqa_core.clip.encoder import Towers
    from iqa_core.clip.facts import ModelFacts

__all__ = ["FORMAT", "ContextKind", "LearnedPrompts", "Position", "load_prompts", "save_prompts"]

#: The newest version of the format; older ones are read.
FORMAT = 2

_SUFFIX = ".safetensors"
_KEY = "iqa_prompts"


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
    plain = prompts.contexts == 1 and prompts.weights is None
    document = {
        "format": 1 if plain else FORMAT,
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
    tensors = {"context": prompts.context, "features": prompts.text_features}
    if plain:
        tensors = {key: tensor[0] for key, tensor in tensors.items()}
    if prompts.weights is not None:
        tensors["weights"] = prompts.weights
    tensors = {key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()}
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
        many = version > 1
        return LearnedPrompts(
            model=str(document["tower"]),
            weights_digest=str(document["weights_digest"]),
            quick_gelu=bool(document["quick_gelu"]),
            pairs=tuple(PromptPair(**pair) for pair in document["pairs"]),
            position=document["position"],
            kind=document["kind"],
            # As loaded, they are read-only.
            context=tensors["context"].copy() if many else tensors["context"].copy()[None],
            text_features=tensors["features"].copy() if many else tensors["features"].copy()[None],
            weights=tensors["weights"].copy() if "weights" in tensors else None,
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
        return Folder.given(parent, "prompts"), name
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
