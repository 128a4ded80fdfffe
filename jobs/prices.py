"""Prices of CPUs and GPUs, and what a cluster costs by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Prices"]


@dataclass(frozen=True)
class Prices:
    """Prices in any currency.

    Attributes:
        cpu: Of a CPU, an hour.
        gpu: Of a GPU, an hour.
    """

    cpu: float = 0.0
    gpu: float = 0.0

    @classmethod
    def of(cls, cpu: float | None, gpu: float | None) -> Prices | None:
        """Return the prices of ``--cpu-price`` and ``--gpu-price``; None if neither is given."""
        return None if cpu is None and gpu is None else cls(cpu or 0.0, gpu or 0.0)

    def hour(self, resources: Mapping[str, float]) -> float:
        """Return the price of a cluster for an hour.

        Args:
            resources: Its resources, as ``ray.cluster_resources()``; a head with 0 CPUs costs nothing.
        """
        return self.cpu * resources.get("CPU", 0.0) + self.gpu * resources.get("GPU", 0.0)
