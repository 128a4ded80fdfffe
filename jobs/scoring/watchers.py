"""Who watches a run of `iqa score` or `iqa embed`: Ray's metrics, and the file that `iqa status` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqa_core import __version__
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder
from iqa_core.tables.run_state import progress_name

from ..prices import Prices
from .metrics import RunMetrics
from .progress_file import ProgressFile
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.tables.manifest import Manifest

    from ..config import ImageOptions
    from .watch import Watcher

__all__ = ["watch_run"]


def watch_run(
    config: ImageOptions, command: str, manifest: Manifest, facts: Mapping[str, Any], file: bool
) -> Watch:
    """Return what follows a run.

    Args:
        config: The options.
        command: The subcommand.
        manifest: The rows of the run.
        facts: What the file says beside its own, such as the model.
        file: Whether ``--output`` is a folder of part files, beside which the file belongs.
    """
    watchers: list[Watcher] = [RunMetrics(command, config.shard or "")]
    if file:
        name = progress_name(manifest.shard.label if manifest.shard else None)
        known = {
            "version": __version__,
            "command": command,
            "shard": config.shard,
            "manifest": redact(config.manifest),
            "rows": manifest.rows,
            **facts,
        }
        watchers.append(ProgressFile(Folder.of(config.output), name, known))
    return Watch(watchers, Prices.of(config.cpu_price, config.gpu_price))
