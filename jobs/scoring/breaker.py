"""Circuit breaker: a run stops when the images of a host or bucket fail row after row."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING

from iqa_core.errors import Status
from iqa_core.fetch.uri import host_of
from iqa_core.storage.folder import has_scheme

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pyarrow as pa

__all__ = ["Breaker"]

#: Failures of the store, not of the image.
_OUTAGE = {Status.FORBIDDEN, Status.NETWORK, Status.THROTTLED, Status.TIMEOUT}
_WINDOW = 300
_SHARE = 0.9
_HOSTS = 10_000


class Breaker:
    """Watches the statuses of the last rows of each host.

    Args:
        base: The manifest's folder, from which images with relative paths come.
        window: Last rows of a host that count.
        share: The breaker opens if at least this share of them has the same failure.
    """

    def __init__(self, base: str = "", window: int = _WINDOW, share: float = _SHARE) -> None:
        self._base = host_of(base)
        self._share = share
        self._last: OrderedDict[str, deque[str]] = OrderedDict()
        self._window = window
        self.broken: tuple[str, str] | None = None

    def concerns(self, statuses: Collection[str]) -> bool:
        """Return whether rows with these statuses must be added: not before a store's first failure."""
        return bool(self._last) or not _OUTAGE.isdisjoint(statuses)

    def add(self, uris: Sequence[str | None], statuses: Sequence[str]) -> str | None:
        """Add rows; return a description of the outage if one is detected.

        Args:
            uris: URI of each row; None for images that are embedded in the manifest.
            statuses: Status of each row.
        """
        if not self.concerns(statuses):
            return None
        touched = set()
        for uri, status in zip(uris, statuses, strict=True):
            if host := self._host_of(uri):
                if host not in self._last:
                    self._last[host] = deque(maxlen=self._window)
                self._last[host].append(status)
                self._last.move_to_end(host)
                touched.add(host)
        # A crawl has millions of hosts: the least recently used are dropped.
        while len(self._last) > _HOSTS:
            self._last.popitem(last=False)
        for host in touched & self._last.keys():
            last = self._last[host]
            status, count = Counter(last).most_common(1)[0]
            if len(last) == self._window and status in _OUTAGE and count >= self._share * len(last):
                self.broken = (host, status)
                return (
                    f"{count} of the last {len(last)} rows of {host} failed with {status!r}: this is "
                    "an outage, not bad images"
                )
        return None

    def _host_of(self, uri: str | None) -> str:
        return self._base if uri and not has_scheme(uri) else host_of(uri)

    def without_victims(self, table: pa.Table) -> pa.Table:
        """Return the rows of a table without those that failed in the outage."""
        if self.broken is None:
            return table
        host, status = self.broken
        kept = [
            found != status or self._host_of(uri) != host
            for uri, found in zip(
                table.column("uri").to_pylist(), table.column("status").to_pylist(), strict=True
            )
        ]
        return table.filter(kept)
