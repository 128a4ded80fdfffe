"""Turns errors of Ray Data and Ray Train into one line: the cause, what is safe, what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import ray
import ray.exceptions

from iqa_core.errors import InputError
from iqa_core.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NodeError",
    "as_input_error",
    "loss",
    "node_error",
    "node_name",
    "this_node",
    "user_error",
]

_LONGEST = 300

#: How Ray names the worker in the text of an error; the error itself has lost its attributes by then.
_WORKER = re.compile(r"\(pid=(\d+), ip=([^\s,)]+)")

#: Losses of machines, memory and connections: a retry of the same work may succeed.
_RETRYABLE = (
    ray.exceptions.ActorUnavailableError,
    ray.exceptions.GetTimeoutError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.ObjectStoreFullError,
    ray.exceptions.OutOfDiskError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.RayActorError,
    ray.exceptions.RaySystemError,
    ray.exceptions.RpcError,
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.WorkerCrashedError,
)


class NodeError(Exception):
    """A failure of a node, not of the work that was scheduled on it.

    Args:
        message: What is wrong, in one line that names the node.
        node: The node's id.
    """

    def __init__(self, message: str, node: str = "") -> None:
        super().__init__(message, node)  # both in args, for pickling
        self.node = node

    def __str__(self) -> str:
        """Return the message's first line, without the advice that Ray Data appends."""
        return str(self.args[0]).partition("\n")[0]


def this_node() -> tuple[str, str]:
    """Return the id of the node that this process runs on, and its name in messages."""
    if not ray.is_initialized():
        return "", "this machine"
    node = ray.get_runtime_context().get_node_id()
    return node, node_name(ray.util.get_node_ip_address(), node)


def node_name(address: str, node: str) -> str:
    """Return the name of a node in messages; several nodes may share an address."""
    return f"node {address} ({node[:8]})"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, from Ray's wrapper to what the task raised."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        # Ray Train keeps the error of a lost worker under another name.
        error = (
            getattr(error, "cause", None)
            or getattr(error, "health_check_failure", None)
            or error.__cause__
        )


def user_error(error: BaseException) -> InputError | None:
    """Return the :class:`InputError` that a task raised, if it is the cause of an error of Ray."""
    for cause in chain(error):
        if isinstance(cause, InputError) and not _is_rays(cause):
            # Ray Data appends advice on its retries to the message, which is one line.
            cause.args = (str(cause.args[0]).partition("\n")[0], *cause.args[1:])
            return cause
    return None


def node_error(error: BaseException) -> NodeError | None:
    """Return the :class:`NodeError` that a task raised, if it is the cause of an error of Ray."""
    return next(
        (cause for cause in chain(error) if isinstance(cause, NodeError) and not _is_rays(cause)),
        None,
    )


def _is_rays(error: BaseException) -> bool:
    """Return whether an error is Ray's wrapper, which also is an instance of what it wraps."""
    return isinstance(error, ray.exceptions.RayError)


def loss(error: BaseException) -> BaseException | None:
    """Return what was lost, if a retry of the same work may succeed; None otherwise."""
    return next((cause for cause in chain(error) if isinstance(cause, _RETRYABLE)), None)


def as_input_error(error: BaseException) -> InputError:
    """Return one line: what happened, what is safe, and whether the same command can resume.

    Args:
        error: What Ray Data or Ray Train raised.
    """
    if own := user_error(error):
        return own
    lost = loss(error)
    if lost is not None:
        return InputError(
            f"Ray lost part of the work for good ({_reason(lost)}); what was finished is safe, and the "
            "same command resumes"
        )
    innermost = list(chain(error))[-1]
    return InputError(
        f"a task failed ({_reason(innermost)}); what was finished is safe, but the same command may fail "
        f"again: see {_log_of(error)}"
    )


def _log_of(error: BaseException) -> str:
    """Return where the output of the worker is that raised an error."""
    for cause in chain(error):
        if _is_rays(cause) and (found := _WORKER.search(str(cause))):
            process, address = found.groups()
            name = f"worker-*-{process}.err"
            return (
                f"{name} in Ray's session logs on node {address} (`ray logs cluster '{name}' --node-ip "
                f"{address}` prints it)"
            )
    return "the workers' output in Ray's session logs"


def _reason(error: BaseException) -> str:
    """Return an error's class and the most informative line of its text."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not set(line) <= set("^~ ")]
    # Ray's errors end with the text of what was raised; others begin with what matters.
    line = (lines[-1] if _is_rays(error) and len(lines) > 8 else lines[0]) if lines else ""
    return redact(f"{type(error).__name__}: {line}"[:_LONGEST].rstrip(": "))
