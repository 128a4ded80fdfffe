"""Workers that import what scoring needs while the driver still loads the model."""

from __future__ import annotations

import importlib

import ray

__all__ = ["warm_workers"]

#: What a scoring actor on a CPU imports, in seconds: torch, Ray Data and what they bring.
_MODULES = ("ray.data", f"{__package__}.actor")


def warm_workers(number: int) -> None:
    """Have workers of a local Ray do their imports; Ray gives idle workers to actors.

    Nothing waits for them, and nothing depends on them: a worker that is not warm imports later.

    Args:
        number: CPUs to use for that, a worker each.
    """
    for _ in range(number):
        _import_modules.remote(_MODULES)


@ray.remote(num_cpus=1, max_retries=0)
def _import_modules(names: tuple[str, ...]) -> None:
    for name in names:
        importlib.import_module(name)
