"""The losses by name: those of this package, and those that other packages bring.

A package adds its own loss by an entry point in the group ``iqa.losses``, here in a pyproject.toml::

    [project.entry-points."iqa.losses"]
    mine = "my_package.losses:my_loss"

Then ``iqa train --loss mine`` and ``make_loss("mine")`` use ``my_loss``, on every machine where the package
is installed. It must be a :class:`Loss`; its keyword-only parameters with a default are its
hyper-parameters.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Literal, Protocol

import torch

from iqa_core.errors import InputError
from iqa_core.losses.linear import plcc
from iqa_core.losses.listwise import approx_ndcg, listmle, listnet, soft_spearman
from iqa_core.losses.pairwise import fidelity, margin_ranking, ranknet
from iqa_core.losses.pseudo_labels import upl

__all__ = ["GROUP", "LOSSES", "Loss", "LossEntry", "find_loss", "loss_names", "make_loss"]

#: The group of entry points in which other packages name their losses.
GROUP = "iqa.losses"


class Loss(Protocol):
    """A loss whose hyper-parameters are set.

    Finite, with a finite gradient, for every finite margin: also for lists whose targets are all equal
    and for lists whose images are all masked. It neither changes its inputs nor depends on the order in
    which the images are given.
    """

    def __call__(
        self, margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None = None, /
    ) -> torch.Tensor:
        """Return the loss of each list, or one value for all of them.

        Args:
            margins: (..., L) logit margins with gradients; in training (P, L), a list for each prompt
                pair.
            targets: (..., L), or with leading dimensions that broadcast; higher is better.
            mask: (..., L) bool, likewise: False removes an image from its list. None is all True.

        Returns:
            (...), one loss for each list; or a scalar.
        """


@dataclass(frozen=True)
class LossEntry:
    """An entry of :data:`LOSSES`.

    Attributes:
        function: The loss.
        kind: ``pairwise`` losses also take ``pairs``, a mask over pairs, as a fourth argument;
            ``external`` ones come from another package.
        summary: What it is, in a few words.
        package: Name and version of the package that brings it; "" for this one.
    """

    function: Callable[..., torch.Tensor]
    kind: Literal["pairwise", "listwise", "pseudo-label", "linear", "external"]
    summary: str
    package: str = ""

    @property
    def defaults(self) -> Mapping[str, float]:
        """The hyper-parameters by name, with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


#: The losses of this package by name, as the command line spells them.
LOSSES: Mapping[str, LossEntry] = MappingProxyType(
    {
        "ranknet": LossEntry(ranknet, "pairwise", "cross-entropy of each pair's order"),
        "margin": LossEntry(margin_ranking, "pairwise", "hinge on each pair's difference"),
        "fidelity": LossEntry(fidelity, "pairwise", "bounded loss of each pair's order"),
        "listmle": LossEntry(listmle, "listwise", "likelihood of the whole order"),
        "listnet": LossEntry(listnet, "listwise", "cross-entropy of top-one probabilities"),
        "approx-ndcg": LossEntry(approx_ndcg, "listwise", "NDCG of approximate ranks"),
        "soft-spearman": LossEntry(soft_spearman, "listwise", "correlation of approximate ranks"),
        "upl": LossEntry(upl, "pseudo-label", "cross-entropy on the most confident images"),
        "plcc": LossEntry(plcc, "linear", "linear correlation with measured targets"),
    }
)


def loss_names() -> list[str]:
    """Return the names of all losses: those of this package, then those of others."""
    return [*LOSSES, *sorted(_external().keys() - LOSSES.keys())]


def find_loss(name: str) -> LossEntry:
    """Return a loss of this package or, where it has none of that name, of another one.

    Args:
        name: A key of :data:`LOSSES`, or the name of an entry point.

    Raises:
        InputError: If there is no such loss, or another package's can't be used.
    """
    if name in LOSSES:
        return LOSSES[name]
    point = _external().get(name)
    if point is None:
        raise InputError(f"loss {name!r} is none of {', '.join(loss_names())}: choose one of these")
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    try:
        function = point.load()
        entry = LossEntry(function, "external", f"{point.value} of {package}", package)
        _check_external(name, functools.partial(function, **entry.defaults))
    except InputError:
        raise
    except Exception as error:  # another package's code may raise anything
        raise InputError(
            f"loss {name!r} ({point.value} of {package}) can't be used: {type(error).__name__}: {error}"
        ) from error
    return entry


def make_loss(name: str, **hyper_parameters: float) -> Loss:
    """Return a loss by name with its hyper-parameters set and checked.

    Args:
        name: A key of :data:`LOSSES`, or the name of an entry point in the group ``iqa.losses``.
        **hyper_parameters: Those of this loss; those left out have their defaults.

    Returns:
        ``loss(margins, targets, mask=None)``; a pairwise one also takes ``pairs``.

    Raises:
        InputError: If there is no such loss or hyper-parameter, or a value is unusable.
    """
    loss = find_loss(name)
    unknown = sorted(set(hyper_parameters) - set(loss.defaults))
    if unknown:
        known = ", ".join(loss.defaults) or "none"
        raise InputError(f"loss {name} has no hyper-parameter {unknown[0]!r}: it takes {known}")
    bound = functools.partial(loss.function, **hyper_parameters)
    bound(torch.zeros(1), torch.zeros(1))  # refuse a bad value now, not in the first step
    return bound


def _external() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _check_external(name: str, loss: Loss) -> None:
    """Check on two small lists that another package's loss keeps the contract of :class:`Loss`.

    Raises:
        InputError: If it doesn't.
    """
    margins = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]], requires_grad=True)
    targets = torch.tensor([[0.9, 0.1, 0.5]])
    for case, t, mask in (
        ("distinct targets", targets, None),
        ("equal targets", torch.zeros_like(targets), None),
        ("masked images only", targets, torch.zeros(1, 3, dtype=torch.bool)),
    ):
        values = loss(margins, t, mask)
        if values.shape not in ((2,), ()):
            raise InputError(
                f"loss {name!r} returned a tensor of shape {tuple(values.shape)} for margins of shape "
                "(2, 3), but must return one value for each list, (2,), or a scalar"
            )
        total = values.sum()
        if mask is None and t is targets and not total.requires_grad:
            raise InputError(
                f"loss {name!r} has no gradient: compute it from the margins with PyTorch's functions"
            )
        finite = bool(total.isfinite())
        if total.requires_grad:
            finite &= bool(torch.autograd.grad(total, margins)[0].isfinite().all())
        if not finite:
            raise InputError(
                f"loss {name!r} or its gradient is not finite for a list with {case}: define it there, "
                "such as 0"
            )
