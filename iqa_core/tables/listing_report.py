"""What `iqa manifest` left out, corrected or finds doubtful: counts with an example and the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from iqa_core.storage.encodings import printable

__all__ = ["Group", "ListingReport", "Reason"]


class Group(Enum):
    """What happened to the items that a reason counts."""

    LEFT_OUT = "left_out"  # no row of the manifest
    CORRECTED = "corrected"  # a row, whose path is not as the list has it
    DOUBTFUL = "doubtful"  # a row as the list has it, which will probably fail or is not meant


class Reason(Enum):
    """Why an item has no row or was corrected: key, group and message."""

    group: Group
    line: str

    def __new__(cls, key: str, group: Group, line: str) -> Reason:
        """Create a member whose value is its key."""
        member = object.__new__(cls)
        member._value_ = key
        member.group = group
        member.line = line
        return member

    SUFFIX = (
        "suffix",
        Group.LEFT_OUT,
        "files left out: their suffix is not that of an image",
    )
    HIDDEN = (
        "hidden",
        Group.LEFT_OUT,
        "hidden files and folders, or an operating system's own, left out: name one to list it",
    )
    NOT_UTF8 = (
        "not_utf8",
        Group.LEFT_OUT,
        "shards left out: their names are no UTF-8, but of an older encoding: rename them, for instance "
        "with convmv",
    )
    LIKE_URI = (
        "like_uri",
        Group.LEFT_OUT,
        "images left out: a name with '::', '://' or '#bytes=' means something else in a manifest: "
        "rename them",
    )
    UNREADABLE = (
        "unreadable",
        Group.LEFT_OUT,
        "folders left out: they can't be read: change their permissions or the user",
    )
    LISTED_ALREADY = (
        "listed_already",
        Group.LEFT_OUT,
        "links to folders not followed: what they lead to is listed already",
    )
    BROKEN_LINK = ("broken_link", Group.LEFT_OUT, "links left out: what they lead to is not there")
    NOT_REGULAR = ("not_regular", Group.LEFT_OUT, "pipes, sockets or devices left out")
    ARCHIVE = (
        "archive",
        Group.LEFT_OUT,
        "archives left out: images are read in place only in uncompressed tar files: unpack them",
    )
    NO_LIST = (
        "no_list",
        Group.LEFT_OUT,
        "files left out: they are no list: give CSV with a line of column names, or a .txt file with "
        "one path or URL a line",
    )
    PARQUET = (
        "parquet",
        Group.LEFT_OUT,
        "Parquet files left out: give those with images or URIs to --manifest as they are",
    )
    DAMAGED_SHARD = (
        "damaged_shard",
        Group.LEFT_OUT,
        "shards damaged or incomplete: what is whole in them is listed: fetch or write them anew",
    )
    CUT_MEMBER = (
        "cut_member",
        Group.LEFT_OUT,
        "images in shards left out: the shard ends before they do",
    )
    SPARSE_MEMBER = (
        "sparse_member",
        Group.LEFT_OUT,
        "images in shards left out: they are stored in pieces (sparse): write the shard without",
    )
    MEMBER_LINK = (
        "member_link",
        Group.LEFT_OUT,
        "links in shards left out: what they lead to is not in the shard",
    )
    REPLACED_MEMBER = (
        "replaced_member",
        Group.LEFT_OUT,
        "images in shards left out: a later one of the same name replaces them, as in unpacking",
    )

    BLANKS = ("blanks", Group.CORRECTED, "paths read without the blanks around them")
    QUOTES = ("quotes", Group.CORRECTED, "paths read without the quotation marks around them")
    BACKSLASHES = ("backslashes", Group.CORRECTED, "paths read with / for \\")
    PERCENT = ("percent", Group.CORRECTED, "paths read with their percent-encoding decoded")
    COMPOSITION = (
        "composition",
        Group.CORRECTED,
        "paths read with their accents composed, or decomposed, as the file's name has them",
    )

    NO_PATH = ("no_path", Group.DOUBTFUL, "rows have no path: their status will be invalid_row")
    DRIVE = (
        "drive",
        Group.DOUBTFUL,
        "paths are of a Windows drive or share: make them relative to the list's folder",
    )
    BACKSLASHES_MISSING = (
        "backslashes_missing",
        Group.DOUBTFUL,
        "paths have backslashes, and with / for them there is no such file either",
    )
    MISSING = ("missing", Group.DOUBTFUL, "files of a sample are not there")
    REPEATED = (
        "repeated",
        Group.DOUBTFUL,
        "rows have an image that an earlier row has, too: each will be scored",
    )


@dataclass
class _Tally:
    count: int
    example: str


@dataclass
class ListingReport:
    """Counts by reason, each with its first example, and how lists were read.

    Attributes:
        tallies: Reason -> count and first example.
        notes: How lists were read, a line each.
    """

    tallies: dict[Reason, _Tally] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, reason: Reason, example: str, count: int = 1) -> None:
        """Count items; the first example of a reason is kept, made printable."""
        if reason in self.tallies:
            self.tallies[reason].count += count
        elif count:
            self.tallies[reason] = _Tally(count, printable(example))

    @property
    def total(self) -> int:
        """Number of items that were left out, for any reason."""
        return sum(
            tally.count for reason, tally in self.tallies.items() if reason.group is Group.LEFT_OUT
        )

    def lines(self, *groups: Group) -> list[str]:
        """Return a line for each reason of these groups, of all by default."""
        return [
            f"{tally.count:,} {reason.line} ({tally.example})"
            for reason, tally in sorted(self.tallies.items(), key=lambda item: _ORDER[item[0]])
            if not groups or reason.group in groups
        ]

    def document(self) -> dict[str, Any]:
        """Return all of it for JSON: group -> reason -> count and example; and the notes."""
        groups: dict[str, Any] = {group.value: {} for group in Group}
        for reason, tally in self.tallies.items():
            groups[reason.group.value][reason.value] = vars(tally)
        return {**groups, "notes": self.notes}


_ORDER = {reason: place for place, reason in enumerate(Reason)}
