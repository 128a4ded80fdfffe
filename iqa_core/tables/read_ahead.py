"""Runs tasks in threads some steps ahead of their consumer, and gives their results in order."""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["available_cpus", "in_order"]

T = TypeVar("T")


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, by its affinity and its container's quota."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = _container_cpus()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def _container_cpus(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the CPUs that control groups allow, as ``docker run --cpus`` sets them; None for no limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((root / "cpu" / name).read_text() for name in names)
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # none, or `max`
        return None


def in_order(tasks: Iterable[Callable[[], T]], workers: int) -> Iterator[T]:
    """Yield what tasks return, in their order; some more run meanwhile.

    At most ``workers + 1`` results or running tasks exist at a time, with the one that was yielded last.

    >>> list(in_order([lambda: 1, lambda: 2, lambda: 3], workers=2))
    [1, 2, 3]

    Args:
        tasks: Functions; taken from the iterable as needed, in the consumer's thread.
        workers: Threads, at least 1.

    Raises:
        Exception: Of the first task that failed, in its place. Those after it are not begun, or waited for.
    """
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for task in tasks:
                pending.append(pool.submit(task))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
