"""Which images each step ranks: lists of rows, and bases with their copies, for each context its own.

All randomness is a function of (seed, epoch), so a killed run continues exactly as if it had not been
interrupted, and the number of workers changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from iqa_core.errors import InputError
from iqa_core.losses.pseudo_labels import pseudo_labels
from iqa_core.losses.table import find_loss

if TYPE_CHECKING:
    from iqa_core.training.data import TrainingData
    from iqa_core.training.settings import Settings

__all__ = ["Batch", "Lists", "epoch_order"]

#: Bases of one step at most: all their copies are compared with each other.
_MOST_BASES = 32


class Batch(NamedTuple):
    """What one context learns from in one step.

    Attributes:
        features: (L, D) of the list.
        targets: (L, P) or (L, 1).
        views: (M, D) of bases and their copies.
        levels: (M,) of these.
        images: (M,) numbers of the bases, where only copies of one are compared; else None.
    """

    features: torch.Tensor
    targets: torch.Tensor
    views: torch.Tensor
    levels: torch.Tensor
    images: torch.Tensor | None

    def to(self, device: torch.device) -> Batch:
        """Return it on a device."""
        return Batch(
            self.features.to(device),
            self.targets.to(device),
            self.views.to(device),
            self.levels.to(device),
            None if self.images is None else self.images.to(device),
        )


class Lists:
    """The lists of a training.

    Args:
        data: The rows.
        settings: How they are used. A loss of pseudo-labels uses only the images that it labels, chosen
            once from all rows.

    Raises:
        InputError: If the rows don't fill one list.
    """

    def __init__(self, data: TrainingData, settings: Settings) -> None:
        self._data, self._settings = data, settings
        self._features, self._targets = data.train()
        self._bases = data.train_bases()
        self._rows = np.arange(data.rows, dtype=np.uint32)
        self._labels: np.ndarray | None = None
        size = settings.list_size
        if find_loss(settings.loss).kind == "pseudo-label":
            self._rows, self._labels = _pseudo_labelled(
                self._targets, **{"top": 16.0, **settings.loss_options}
            )
            size = min(size, len(self._rows))
        if data.rows < size or not size:
            raise InputError(
                argument="list_size",
                value=settings.list_size,
                limit=f"at most {data.rows:,}, the number of training rows",
                fix="lower it, or embed more images",
            )
        self._size = size
        #: Steps of one pass over the rows.
        self.per_epoch = len(self._rows) // size

    @property
    def has_labels(self) -> bool:
        """Whether targets are pseudo-labels: 1, -1, or 0 for none."""
        return self._labels is not None

    def batches(self, contexts: Sequence[int], step: int) -> Iterator[Mapping[int, Batch]]:
        """Yield the batch of each context, by its number, for each step from one on, endlessly."""
        while True:
            yield {context: self._batch(context, step) for context in contexts}
            step += 1

    def _batch(self, context: int, step: int) -> Batch:
        seed = self._settings.seed + context
        targets = self._targets if self._labels is None else self._labels
        places = self._take(len(self._rows), self._size, seed, step, 0)
        rows = np.sort(self._rows[places])  # a list has no order; a disk does
        chosen = np.empty(0, dtype=np.int64)
        if len(self._bases.levels) and self._settings.order_weight:
            count = min(_MOST_BASES, len(self._bases.levels))
            chosen = np.sort(self._take(len(self._bases.levels), count, seed, step, 1))
        each = self._bases.levels.shape[1]
        images = torch.arange(len(chosen)).repeat_interleave(each) if self._data.within else None
        return Batch(
            torch.from_numpy(np.array(self._features[rows])),
            torch.from_numpy(np.array(targets[rows])),
            torch.from_numpy(self._bases.features[chosen].reshape(-1, self._data.width)),
            torch.from_numpy(self._bases.levels[chosen].ravel()),
            images,
        )

    def _take(self, count: int, size: int, seed: int, step: int, stream: int) -> np.ndarray:
        epoch, place = divmod(step, count // size)
        order = epoch_order(count, seed, epoch, stream)
        return order[place * size : (place + 1) * size]


@functools.lru_cache(maxsize=64)  # a quarter of a megabyte each
def epoch_order(rows: int, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    """Return the order in which a context takes rows: (rows,) uint32, read only.

    Args:
        rows: Their number.
        seed: Of the context.
        epoch: Which pass over the rows.
        stream: Another number gives another order: 0 for the lists, 1 for the bases.
    """
    generator = np.random.default_rng([seed, epoch, stream])
    order = generator.permutation(np.arange(rows, dtype=np.uint32))
    order.flags.writeable = False
    return order


def _pseudo_labelled(targets: np.ndarray, top: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that any pair labels, and the labels, (rows, P) or (rows, 1) of float64."""
    labels = pseudo_labels(torch.from_numpy(np.array(targets.T, order="C")), top=int(top)).numpy().T
    return np.flatnonzero(labels.any(axis=1)), labels.astype(np.float64)
