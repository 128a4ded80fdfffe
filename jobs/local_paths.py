"""Local paths on a cluster: each node has its own files, unless all of them share a filesystem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import has_scheme

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .cluster import Cluster

__all__ = ["refuse_local_paths"]


def refuse_local_paths(paths: Iterable[tuple[str, str]], cluster: Cluster, *, shared: bool) -> None:
    """Refuse paths of this machine where there are several nodes.

    Args:
        paths: The flag of each path, such as ``--manifest``, and the path or URI.
        cluster: The cluster.
        shared: ``--shared-filesystem``: all nodes see the same files.

    Raises:
        InputError: If a path is local, and some nodes may not see it.
    """
    if shared or not cluster.has_several_nodes:
        return
    local = [f"{flag} {redact(path)}" for flag, path in paths if path and _is_local(path)]
    if local:
        raise InputError(
            f"{' and '.join(local)}: on this machine, whose files the other nodes of the cluster may not "
            "see: use an object store such as s3://, or say --shared-filesystem if they see the same files"
        )


def _is_local(uri: str) -> bool:
    return uri.startswith(("file:", "local:")) or not has_scheme(uri)
