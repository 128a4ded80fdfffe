"""The end of a run: audit, summary, messages, exit status."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from iqa_core import __version__
from iqa_core.errors import Status
from iqa_core.redaction import redact
from iqa_core.tables.audit import audit, describe_lost

from ..gpus import count_gpus
from .outcome import describe_outcome, utilisation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iqa_core.tables.audit import Audit
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.sink import Sink

    from ..config import OutputOptions
    from .outcome import Outcome
    from .pool import ActorPool
    from .watch import Watch

__all__ = ["conclude", "conclude_without_work", "options_as_json"]

_TOO_MANY_ERRORS = 3
_STOPPED = 143  # as of a process that SIGTERM ended


def options_as_json(config: Any) -> dict[str, Any]:  # noqa: ANN401 - any command's dataclass
    """Return the options as stored beside the output: without passwords or signatures."""
    return {name: _redacted(value) for name, value in asdict(config).items()}


def _redacted(value: Any) -> Any:  # noqa: ANN401 - any option's
    if isinstance(value, tuple):
        return [_redacted(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def conclude(
    sink: Sink,
    outcome: Outcome,
    pool: ActorPool | None,
    max_error_rate: float,
    watch: Watch | None = None,
) -> int:
    """Audit an output, write and print a summary, and return the exit status.

    It prints last: standard output may be a pipe to a process that has ended.

    Args:
        sink: The output, within its ``start`` block.
        outcome: The outcome of the run.
        pool: The scoring actors; None without Ray.
        max_error_rate: ``--max-error-rate``.
        watch: Is told of the end.

    Returns:
        0, 1 if the audit failed, 3 if too many rows failed or after an outage, 143 if stopped.
    """
    result = sink.audit()
    sink.finish(_summary(outcome, sink, result, pool))
    status, lines = _status(sink, outcome, result, max_error_rate)
    if watch is not None:
        watch.end(outcome, status)
    print(*_about(outcome), *lines, sep="\n")
    return status


def _about(outcome: Outcome) -> Iterator[str]:
    yield describe_outcome(outcome)
    if outcome.out_of_memory:
        yield (
            f"the device's memory was full {outcome.out_of_memory:,} times, and batches were halved: a "
            "smaller --batch-size avoids that"
        )
    if outcome.repeated is not None:
        share = outcome.repeated / max(1, outcome.rows)
        yield (
            f"{outcome.repeated:,} rows had bytes seen before ({share:.1%}) and were not encoded again"
        )


def _status(
    sink: Sink, outcome: Outcome, result: Audit, max_error_rate: float
) -> tuple[int, list[str]]:
    """Return the exit status and why it is that."""
    if outcome.stopped:
        return _STOPPED, [f"stopped: {result}; the same command resumes"]
    if outcome.broken:
        return _TOO_MANY_ERRORS, [
            f"{outcome.broken}. Stopped: {result}; once it is over, the same command resumes, with "
            "--retry-errors for rows that failed before this was noticed (--max-error-rate 1 continues "
            "through an outage)"
        ]
    return _status_of_rows(sink, result, max_error_rate)


def conclude_without_work(sink: Sink, manifest: Manifest, options: OutputOptions) -> int:
    """Audit an output that has all rows, print the result, and return the exit status: 0, 1 or 3."""
    of_shard = f" of {manifest.shard}" if manifest.shard else ""
    output = redact(options.output)
    if manifest.rows:
        print(f"nothing to do: all {manifest.rows:,} rows{of_shard} are in {output}")
    else:
        print(
            f"nothing to do: the manifest has no rows{of_shard}, and nothing is written to {output}"
        )
    result = audit(manifest, sink.committed().rows)
    status, lines = _status_of_rows(sink, result, options.max_error_rate)
    print(*lines, sep="\n")
    return status


def _status_of_rows(sink: Sink, result: Audit, max_error_rate: float) -> tuple[int, list[str]]:
    lines = [str(result)]
    if not result.passed:
        return 1, lines
    if lost := describe_lost(sink.committed().statuses):
        lines.append(lost)
    total = sum(sink.committed().statuses.values())
    failed = total - sink.committed().statuses["ok"]
    if total and failed / total > max_error_rate:
        lines.append(
            f"{failed:,} of {total:,} rows could not be scored ({failed / total:.1%}), more than "
            f"--max-error-rate {max_error_rate:g} allows: see the status and error columns. Exit status "
            f"{_TOO_MANY_ERRORS}: the output is complete all the same"
        )
        return _TOO_MANY_ERRORS, lines
    return 0, lines


def _steady_state(outcome: Outcome) -> dict[str, Any]:
    """Return what the summary says of the steady state and of the driver; null where it was too short."""
    steady = outcome.steady
    busy = utilisation(steady.stage_seconds, steady.seconds, outcome.workers) if steady else {}
    return {
        "start_up_seconds": None if outcome.start_up is None else round(outcome.start_up, 3),
        "steady_images_per_second": round(steady.images_per_second, 2) if steady else None,
        "steady_seconds": round(steady.seconds, 3) if steady else None,
        "utilisation": {stage: round(share, 3) for stage, share in busy.items()},
        "driver_cpu_seconds": round(outcome.driver_seconds, 3) if outcome.driver_seconds else None,
        "driver_ms_per_1000_images": round(steady.driver_ms, 1) if steady else None,
    }


def _summary(outcome: Outcome, sink: Sink, result: Audit, pool: ActorPool | None) -> dict[str, Any]:
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "complete": result.passed,
        "rows": len(sink.committed().rows),
        "statuses": dict(sink.committed().statuses),
        "lost_rows": sink.committed().statuses[Status.UNREADABLE],
        "parts": len(sink.committed().parts),
        "audit": asdict(result),
        "last_run": {
            "rows": outcome.rows,
            "seconds": round(outcome.seconds, 3),
            "stopped": outcome.stopped,
            "outage": outcome.broken,
            "out_of_memory": outcome.out_of_memory,
            "repeated": outcome.repeated,
            "stalls": outcome.stalls,
        },
        "images_per_second": round(outcome.rows / max(outcome.seconds, 1e-9), 2),
        "seconds": round(outcome.seconds, 3),
        "stage_seconds": {name: round(s, 3) for name, s in outcome.stage_seconds.items()},
        "bottleneck": outcome.bottleneck,
        **_steady_state(outcome),
        "actors": pool.as_json() if pool else None,
        "devices": outcome.devices,
        "nodes_left_out": list(outcome.left_out),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {count_gpus()} GPUs",
        "version": __version__,
    }
