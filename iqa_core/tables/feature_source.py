"""The interface of stored image features: a feature cache of ours, or files of another program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa

    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.rows import RowSet

__all__ = ["FeatureBlock", "FeatureSource"]


@dataclass(frozen=True)
class FeatureBlock:
    """Rows with their features.

    Attributes:
        rows: N rows, with the identity columns and further ones.
        features: (N, D) of any float type, NaN where a row has none.
    """

    rows: pa.Table
    features: np.ndarray

    def without(self, done: RowSet | None) -> FeatureBlock:
        """Return the rows that are not in a set."""
        if done is None:
            return self
        new = done.missing(self.rows)
        if new.true_count == len(new):
            return self
        return FeatureBlock(self.rows.filter(new), self.features[new.to_numpy(False)])


class FeatureSource(Protocol):
    """Features of images that were encoded before, with the identities of their rows."""

    @property
    def schema(self) -> pa.Schema:
        """The columns that :meth:`blocks` can read."""

    @property
    def kept(self) -> list[str]:
        """Columns that are carried into the output unless ``--keep`` names some."""

    @property
    def model(self) -> str:
        """The ``--model`` whose image tower made the features."""

    def manifest(self) -> Manifest:
        """Return the rows that there should be, as an output's plan records them."""

    def check_model(self, digest: str, width: int) -> None:
        """Refuse a model that can't have made the features.

        Args:
            digest: SHA-256 (hex) of the model's weights.
            width: Width D of its features.

        Raises:
            InputError: If it has other weights, or another width.
        """

    def tower_of(self, digest: str, quick_gelu: bool) -> dict[str, Any]:
        """Return the part of a fingerprint that determines the features, made by such a model."""

    def blocks(
        self, columns: Sequence[str], done: RowSet | None = None
    ) -> Iterator[Callable[[], FeatureBlock]]:
        """Yield functions that read the rows in order; they may run in several threads.

        Args:
            columns: What to read beside identities and features.
            done: Rows to leave out.

        Raises:
            InputError: From this or from the functions, if they can't be read.
        """
