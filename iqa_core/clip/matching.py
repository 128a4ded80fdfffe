"""Finds the tensors of a checkpoint that are the weights of a CLIP, or explains why there are none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from iqa_core.clip.layouts import (
    DERIVED,
    OPENAI_SIZES,
    OPTIONAL,
    Source,
    layouts,
    prefixes,
    without_wrappers,
)
from iqa_core.clip.weights_error import OtherArchitectureError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["MatchedWeights", "match_weights"]

_ADAPTER = re.compile(r"(^|\.)(lora_|hada_|lokr_|oft_|ia3_)")
_OPTIMIZER = re.compile(r"(^|\.)(exp_avg|exp_avg_sq|momentum_buffer|step)$")
#: Parts of names by which a tower is known, also where it was saved alone.
_MARKS = {
    "image": (".visual.", ".vision_model.", ".class_embedding", ".attnpool."),
    "text": (".token_embedding.", ".text_model."),
}


@dataclass(frozen=True)
class MatchedWeights:
    """The weights of one CLIP in a checkpoint.

    Attributes:
        state: Tensors by the architecture's names.
        layout: ``open_clip`` or ``transformers``.
        ignored: Names of the file's other tensors.
    """

    state: dict[str, torch.Tensor]
    layout: str
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class _Fit:
    """One place in a checkpoint that may hold the weights: a layout behind a prefix."""

    layout: str
    sources: Mapping[str, Source]
    required: frozenset[str]
    prefix: str
    missing: tuple[str, ...]

    @property
    def place(self) -> str:
        """The prefix in messages."""
        return self.prefix.rstrip(".")

    def used(self) -> set[str]:
        """Return the file's names of the weights."""
        return {self.prefix + name for source in self.sources.values() for name in source.names}


def match_weights(
    tensors: Mapping[str, torch.Tensor], expected: Collection[str], place: str | None = None
) -> MatchedWeights:
    """Find a CLIP's weights in a checkpoint.

    Args:
        tensors: As :func:`iqa_core.clip.checkpoints.read_tensors` returns them.
        expected: The architecture's names.
        place: Which model of several, by the prefix of its names; "" is the one without a prefix,
            None the only one.

    Returns:
        Its weights by the architecture's names, of the file's shapes and types.

    Raises:
        OtherArchitectureError: If names are missing, or the towers have more than the architecture.
        WeightsError: If several models fit, or these are no weights that can be used.
    """
    tensors = without_wrappers(tensors, expected)
    fits = _fits(tensors, expected)
    complete = [fit for fit in fits if not fit.missing]
    if place is not None:
        wanted = place.rstrip(".")
        complete = [fit for fit in complete if fit.place == wanted] or [
            fit for fit in complete if fit.prefix.startswith(f"{wanted}.")
        ]
    if not complete:
        raise _why_none_fits(tensors, expected, fits, place)
    first, *others = complete
    different = [fit.place for fit in others if not _equal(tensors, first, fit)]
    if different:
        raise WeightsError(
            f"it holds {1 + len(different)} models that fit, "
            f"{_listed([repr(fit) for fit in (first.place, *different)])}",
            f"choose one by adding its prefix to the file's name, such as #{different[-1]}",
        )
    _check_rest(tensors, first)
    state = {
        name: _taken(tensors, first.prefix, source)
        for name, source in first.sources.items()
        if all(first.prefix + part in tensors for part in source.names)
    }
    used = first.used() | {first.prefix + name for name in OPENAI_SIZES}
    ignored = (name for name in tensors if name not in used and not name.endswith(DERIVED))
    return MatchedWeights(state, first.layout, tuple(ignored))


def _fits(tensors: Mapping[str, torch.Tensor], expected: Collection[str]) -> list[_Fit]:
    """Return each place that holds some of the weights, the best first."""
    fits = []
    for layout, sources in layouts(expected):
        required = frozenset(
            part
            for name, source in sources.items()
            if not name.endswith(OPTIONAL)
            for part in source.names
        )
        for prefix in prefixes(tensors, required):
            missing = tuple(sorted(name for name in required if prefix + name not in tensors))
            fits.append(_Fit(layout, sources, required, prefix, missing))
    return sorted(fits, key=lambda fit: (len(fit.missing), len(fit.prefix)))


def _equal(tensors: Mapping[str, torch.Tensor], left: _Fit, right: _Fit) -> bool:
    """Whether two places hold the same numbers, as where a model is stored twice."""
    return left.layout == right.layout and all(
        torch.equal(_taken(tensors, left.prefix, source), _taken(tensors, right.prefix, source))
        for name, source in left.sources.items()
        if not name.endswith(OPTIONAL)
    )


def _taken(tensors: Mapping[str, torch.Tensor], prefix: str, source: Source) -> torch.Tensor:
    parts = [tensors[prefix + name] for name in source.names]
    tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    return tensor.T if source.transposed else tensor


def _check_rest(tensors: Mapping[str, torch.Tensor], fit: _Fit) -> None:
    """Refuse weights if the towers have more of them, or they are not floating-point numbers."""
    _check_adapter(name for name in tensors if name.startswith(fit.prefix))
    used = fit.used()
    roots = {name.partition(".")[0] for source in fit.sources.values() for name in source.names}
    towers = tuple(f"{fit.prefix}{root}." for root in roots)
    rest = [
        name
        for name in tensors
        if name.startswith(towers) and name not in used and not name.endswith(DERIVED)
    ]
    if rest:
        raise OtherArchitectureError(
            f"its towers have {len(rest)} tensors that this architecture has not, such as {rest[0]}",
            "name the architecture that the file was saved from",
        )
    for name in sorted(fit.required):
        tensor = tensors[fit.prefix + name]
        if not tensor.is_floating_point():
            raise WeightsError(
                f"{name} is of type {str(tensor.dtype).removeprefix('torch.')}: the weights are "
                "quantized",
                "give the weights before quantization, in float16, bfloat16 or float32",
            )


def _check_adapter(names: Iterable[str]) -> None:
    adapter = next((name for name in names if _ADAPTER.search(name)), None)
    if adapter is not None:
        raise WeightsError(
            f"it holds an adapter such as LoRA ({adapter}), which changes a base model's weights",
            "merge it into the base model first (with PEFT: merge_and_unload()), and save the whole "
            "state dict",
        )


def _why_none_fits(
    tensors: Mapping[str, torch.Tensor],
    expected: Collection[str],
    fits: list[_Fit],
    place: str | None,
) -> WeightsError:
    _check_adapter(tensors)
    places = [fit.place for fit in fits if not fit.missing]
    if place is not None and places:
        return WeightsError(
            f"it holds no model under {place!r}, but under {_listed(list(map(repr, places)))}",
            f"give #{places[0]}" if places[0] else "leave out what follows #",
        )
    if set(tensors) == {"context", "features"}:
        return WeightsError("it holds learned prompts of iqa train", "give it as --prompts")
    if all(_OPTIMIZER.search(name) for name in tensors):
        return WeightsError(
            "it holds an optimizer's state and no model", "give the file that holds the weights"
        )
    if any(
        name.endswith(("vision_model.head.probe", "text_model.head.weight")) for name in tensors
    ):
        return WeightsError(
            "it is in transformers' layout of a SigLIP, which is not read",
            "use open_clip's copy of these weights, such as --model ViT-B-16-SigLIP/webli",
        )
    image, text = (
        any(mark in f".{name}" for name in tensors for mark in _MARKS[tower])
        for tower in ("image", "text")
    )
    if image != text:
        here, other = ("image", "text") if image else ("text", "image")
        return WeightsError(
            f"it holds {'an' if image else 'a'} {here} tower and no {other} tower",
            "scores need both: give a file with the whole CLIP",
        )
    if not fits or len(fits[0].missing) > 0.9 * len(fits[0].required):
        return OtherArchitectureError(
            f"its {len(tensors)} tensors have other names, such as {_listed(list(tensors)[:2])}",
            "name the architecture that the file was saved from",
        )
    best = fits[0]
    where = f" under {best.place!r}" if best.place else ""
    return OtherArchitectureError(
        f"of the architecture's {len(best.required)} tensors {len(best.missing)} are missing{where}, "
        f"such as {best.missing[0]}",
        "name the architecture that the file was saved from",
    )


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
