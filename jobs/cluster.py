"""The Ray cluster of a run: at an address, or a local one on loopback that lives as long as the run.

Ray itself is imported when a cluster is connected to or started, not before.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import iqa_core
from iqa_core.errors import InputError
from iqa_core.tables.read_ahead import available_cpus

from .gpus import count_gpus
from .local_ray import (
    KEPT_WORKERS,
    no_process_left,
    on_loopback,
    signals_held,
    variables,
    without_services,
)
from .node_types import Autoscaler, Resources, find_autoscaler

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cluster", "Resources"]

#: Ray's sockets are in its temporary folder, and the length of a socket's path is limited.
_LONGEST_SOCKET = 107
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"


class Cluster:
    """The Ray cluster of a run: the one this process is connected to, one at an address, or a local one.

    Without an address, ``RAY_ADDRESS`` is used, which Ray sets for submitted jobs. A local Ray is
    started by :meth:`start` only: a run with nothing to do needs none. What was opened is closed at
    the end of the ``with`` block.

    Args:
        address: As for ``ray.init``.

    Attributes:
        nodes: Resources of each live node, as in ``ray.nodes()``.
        labels: Labels of each live node.
        autoscaler: What could be started beside them; None if unknown.
        is_local: Whether it is a Ray of this process on this machine, which no node can join.

    Raises:
        InputError: If there is no cluster at the address, or a local one does not start.
    """

    def __init__(self, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's core prints errors that need no action by the user, such as a peer that went away.
        # Their effect is visible in the rows.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        self._opened = not _is_connected()
        address = address or os.environ.get("RAY_ADDRESS")
        if address:
            _check_reachable(address)
        if self._opened and address:
            with signals_held():
                _init(f"--address {address} does not answer", address=address)
        self.is_local = not _is_connected()
        self.labels: list[dict[str, str]] = [{}]
        self.autoscaler: Autoscaler | None = None
        if not self.is_local:
            self.nodes, self.labels = nodes_now()
            self.autoscaler = find_autoscaler()
        else:
            # At least two: one reads and decodes while an actor holds the other.
            cpus = float(max(2, available_cpus()))
            gpus = float(count_gpus())
            self.nodes = [{"CPU": cpus, "GPU": gpus}]

    @property
    def resources(self) -> Resources:
        """Resources of all live nodes."""
        kinds = {kind for node in self.nodes for kind in node}
        return {kind: sum(node.get(kind, 0.0) for node in self.nodes) for kind in kinds}

    @property
    def possible_gpus(self) -> float | None:
        """GPUs that the cluster could have with all nodes of its autoscaler; None if unknown."""
        present = self.resources.get("GPU", 0.0)
        if self.is_local:
            return present
        return max(present, self.autoscaler.gpus) if self.autoscaler else None

    @property
    def has_several_nodes(self) -> bool:
        """Whether there are several nodes, or the autoscaler may start some beside the head."""
        return len(self.nodes) > 1 or (self.autoscaler is not None and self.autoscaler.most > 0)

    def start(self) -> None:
        """Start a local Ray, bound to loopback, if there is none yet.

        Raises:
            InputError: If it does not start, or there is no folder for it.
        """
        if _is_connected():
            return
        with (
            signals_held(),
            on_loopback(),
            _usable_environment(),
            without_services(),
            no_process_left(),
        ):
            _init(
                "a local Ray did not start",
                address="local",
                num_cpus=int(self.resources["CPU"]),
                include_dashboard=False,
            )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened and _is_connected():
            import ray

            ray.shutdown()


def nodes_now() -> tuple[list[Resources], list[dict[str, str]]]:
    """Return the resources and the labels of each node that is alive."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    return [dict(node["Resources"]) for node in alive], [dict(node["Labels"]) for node in alive]


def _is_connected() -> bool:
    """Return whether this process is connected to a Ray; without its import it is not."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def _usable_environment() -> Iterator[None]:
    """Give a local Ray a folder for sockets and a token if those of the environment are unusable.

    And have it keep its workers, unless the environment says for how long.
    """
    values = {"RAY_TMPDIR": _socket_folder()}
    values |= {name: os.environ.get(name, value) for name, value in KEPT_WORKERS.items()}
    if not _token_can_be_kept():
        values["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with variables(values):
        yield


def _socket_folder() -> str:
    """Return a folder that is writable and short enough for Ray's sockets.

    Raises:
        InputError: If no folder is.
    """
    named = [name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    tried = []
    for folder in [*(os.environ[name] for name in named), "/tmp", "/var/tmp", "/dev/shm"]:  # noqa: S108
        if len(os.fsencode(folder + _SOCKET)) > _LONGEST_SOCKET:
            tried.append(f"{folder} (too long by {len(os.fsencode(folder + _SOCKET)) - 107} bytes)")
        elif not _is_writable(folder):
            tried.append(f"{folder} (not writable)")
        else:
            return folder
    raise InputError(
        f"Ray finds no folder for its sockets among {', '.join(tried)}: set RAY_TMPDIR to a writable "
        f"folder whose path has at most {_LONGEST_SOCKET - len(_SOCKET)} bytes"
    )


def _is_writable(folder: str) -> bool:
    """Return whether a folder is writable, or the ``ray`` that Ray creates in it."""
    inner = Path(folder, "ray")
    try:
        with tempfile.TemporaryFile(dir=inner if inner.exists() else folder):
            return True
    except OSError:
        return False


def _token_can_be_kept() -> bool:
    """Return whether Ray can read its token below the home folder, or write one there."""
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return True
    try:
        kept = Path.home() / ".ray" / "auth_token"
        if kept.exists():
            return os.access(kept, os.R_OK)
        kept.parent.mkdir(parents=True, exist_ok=True)
        return _is_writable(str(kept.parent))
    except (OSError, RuntimeError):  # no home, or none that this user may write to
        return False


def _check_reachable(address: str) -> None:
    """Fail at once if nothing listens at HOST:PORT; ``ray.init`` retries for five minutes."""
    host, _, port = address.rpartition(":")
    if "/" in host or not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"--address {address} does not answer ({error}): give HOST:PORT of a running head node, "
            "or leave it out for a local Ray"
        ) from error


def _init(what: str, **options: Any) -> None:  # noqa: ANN401 - ray.init's own
    import ray

    # Ray logs here that it protects a local cluster by a token, as it should.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    try:
        with _import_folder(), _without_noise():
            ray.init(logging_level=logging.WARNING, log_to_driver=False, **options)
    except InputError:
        raise
    except (
        Exception
    ) as error:  # Ray raises many kinds, such as Exception after 30 s without an answer
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"{what} ({lines[0]}): check the address, `ray status` and `df -h`"
        ) from error


@contextmanager
def _without_noise() -> Iterator[None]:
    """Drop the lines of Ray's core on its own log level from standard error; pass on all others."""
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(terminal, 2)
                file.seek(0)
                for line in file:
                    if b"Set ray log level from environment variable" not in line:
                        os.write(2, line)
    finally:
        os.close(terminal)


@contextmanager
def _import_folder() -> Iterator[None]:
    """Change to the folder that Ray will put first on its workers' import path.

    Ray takes the working folder, which may hold a ``jobs.py`` or ``iqa_core.py`` of the user. From the
    repository, workers need its root; installed, they need none, so a folder without Python files is used.
    """
    if __package__ == "jobs":
        folder = Path(__file__).parents[1]
    else:
        folder = Path(iqa_core.__file__).parent / "weights"
    try:
        before = os.getcwd()
    except FileNotFoundError as error:
        raise InputError(
            "the working folder is gone: change to one that exists and start again"
        ) from error
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
