"""How a local Ray is started: on loopback, without unused services, and leaving no process behind.

Each is a context in which ``ray.init`` starts it; ``ray.init`` has no options for them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

__all__ = [
    "KEPT_WORKERS",
    "no_process_left",
    "on_loopback",
    "replaced",
    "signals_held",
    "variables",
    "without_services",
]

#: Ray ends idle workers beyond the number of CPUs after a second, and the next slice of a manifest starts
#: another, which costs two seconds of a CPU.
KEPT_WORKERS = {"RAY_idle_worker_killing_time_threshold_ms": "60000"}

_SERVICES = ("start_monitor", "start_log_monitor", "start_api_server")
#: How the raylet is told to start the dashboard's agent.
_AGENT_OPTION = "--dashboard_agent_command="
#: Runs that agent as where the dashboard's dependencies are missing, and without looking for its modules,
#: as none of them would serve.
_MINIMAL_AGENT = (
    "import runpy, sys, ray.dashboard.modules as modules; modules.__path__ = []; "
    "sys.modules['ray.dashboard.optional_deps'] = None; "
    "runpy.run_module('ray.dashboard.agent', run_name='__main__', alter_sys=True)"
)


@contextmanager
def on_loopback() -> Iterator[None]:
    """Make a Ray that is started in this context listen on loopback only, as on macOS and Windows.

    ``ray.init`` has no option for that: it replaces 127.0.0.1 by the machine's address.
    """
    from ray._private import ray_constants

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = (
        False  # for this process, which has already read the variable
    )
    try:
        with variables({name: "0"}):  # for the processes that it starts
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def without_services() -> Iterator[None]:
    """Make a Ray that is started in this context have no services that one run does not use.

    The autoscaler's monitor, the log monitor (nothing is logged to the driver) and the dashboard's server,
    which is started even without a dashboard, cost over two seconds of CPU at the start, in the way of the
    first task. The dashboard's agent, without which no node starts, is the one of a Ray that was installed
    without a dashboard: it serves nothing, so that workers start a second earlier, and no metrics are
    collected. ``ray.init`` has no option for that.
    """
    from ray._private import services
    from ray._private.node import Node

    start = partial(_with_small_agent, services.start_ray_process)
    with replaced(
        *((Node, name, _do_nothing) for name in _SERVICES), (services, "start_ray_process", start)
    ):
        yield


@contextmanager
def replaced(*names: tuple[Any, str, object]) -> Iterator[None]:
    """Give names of modules or classes other values in a context: (owner, name, value) each."""
    before = [vars(owner)[name] for owner, name, _ in names]
    for owner, name, value in names:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(names, before, strict=True):
            setattr(owner, name, value)


def _with_small_agent(
    start: Callable[..., object], command: Sequence[str], *args: object, **options: object
) -> object:
    """Start a process of Ray as it would; the raylet with the dashboard's agent of a minimal Ray."""
    import ray

    script = os.path.join(os.path.dirname(ray.__file__), "dashboard", "agent.py")
    usual, small = (subprocess.list2cmdline(words) for words in ([script], ["-c", _MINIMAL_AGENT]))
    changed = [
        f"{word.replace(usual, small)} --minimal"
        if word.startswith(_AGENT_OPTION) and usual in word
        else word
        for word in command
    ]
    return start(changed, *args, **options)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back while ``ray.init`` runs in this context; a second one acts at once.

    Ray's handler raises SystemExit wherever Python is. In the hooks of a fork, of which a start has many,
    that is lost and ``logging`` stays locked for good; and Ray's core aborts if it is hit while connecting.
    At the end, Ray's handler is in place and gets the signal that came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from ray._private import utils

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    after = dict(before)
    came: list[int] = []

    def hold(number: int, _: object) -> None:
        if came:
            signal.signal(number, after[signal.Signals(number)])
            signal.raise_signal(number)
        came.append(number)

    def set_handler(handler: Callable[[int, FrameType | None], object]) -> None:
        after[signal.SIGTERM] = handler

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, hold)
    own = utils.set_sigterm_handler
    utils.set_sigterm_handler = set_handler
    try:
        yield
    finally:
        utils.set_sigterm_handler = own
        for number, handler in after.items():
            signal.signal(number, handler)
    for held in came:
        signal.raise_signal(held)


@contextmanager
def no_process_left() -> Iterator[None]:
    """Kill the processes that were started in this context if it ends by an error, Ctrl-C or SIGTERM.

    Ray's agents would stay for minutes where ``ray.init`` does not come to its end.
    """
    import psutil  # comes with Ray

    own = psutil.Process()
    before = own.children(recursive=True)
    try:
        yield
    except BaseException:
        for process in own.children(recursive=True):
            if process not in before:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        raise


def _do_nothing(*_: object, **__: object) -> None:
    pass


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in a context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
