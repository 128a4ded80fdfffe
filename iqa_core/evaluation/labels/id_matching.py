"""Matches the ids of scores and labels: exactly, then with normalisations, one step after the other.

A step may ignore a part that one side lacks (the folder, the suffix, leading zeros) or a way of
writing (Unicode's forms, the signs between folders, case). It never takes different folders or
suffixes for the same, and is not applied at all if an id would match two of the other side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.tables.listing import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IdMatch", "match_ids", "why_unmatched"]

#: If this share of the smaller side is matched, both have the same form: the rest is missing.
_ALMOST_ALL = 0.9
_MOST_FOLDERS = 8
_SUFFIX = rf"(?i)\.({'|'.join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))})$"
_NUMBER = r"^0*([0-9]+?)(\.0+)?$"


@dataclass(eq=False)
class IdMatch:
    """Which label belongs to which score.

    Attributes:
        rows: (N,) int64: for each score the row of its label, -1 where there is none.
        steps: What was ignored -> matches that it brought, and one of them: score, label.
        skipped: Steps that would have been ambiguous, each with an example.
    """

    rows: np.ndarray
    steps: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of matches."""
        return int((self.rows >= 0).sum())


@dataclass(frozen=True)
class _Step:
    """The parts of ids that a step ignores, besides spelling."""

    name: str
    suffix: bool = False
    folders: bool = False
    case: bool = False
    number: bool = False


_STEPS = (
    _Step("the suffix", suffix=True),
    _Step("folders", folders=True),
    _Step("folders and suffix", suffix=True, folders=True),
    _Step("case", case=True),
    _Step("case and suffix", case=True, suffix=True),
    _Step("case and folders", case=True, folders=True),
    _Step("case, folders and suffix", case=True, suffix=True, folders=True),
    _Step("leading zeros", number=True),
    _Step(
        "case, folders, suffix and leading zeros", suffix=True, folders=True, case=True, number=True
    ),
)


def match_ids(scores: pa.Array, labels: pa.Array) -> IdMatch:
    """Match the ids of two sides, each id at most once.

    Args:
        scores: (N,) distinct strings, no nulls.
        labels: (M,) distinct strings, no nulls.

    Returns:
        The matches, and how those were found that are not exact.
    """
    match = IdMatch(pc.fill_null(pc.index_in(scores, value_set=labels), -1).to_numpy().astype(int))
    sides = (scores, labels)
    smaller = min(len(scores), len(labels))
    for name, rewrite in _SPELLINGS.items():
        if match.count == smaller:
            return match
        new = rewrite(sides[0]), rewrite(sides[1])
        if any(not after.equals(before) for after, before in zip(new, sides, strict=True)) and (
            _take(match, name, _equal(*new), scores, labels)
        ):
            sides = new
    if (
        match.count >= _ALMOST_ALL * smaller
        or not _is_open(match, _pairs(*sides, _STEPS[-1])).any()
    ):
        return match  # the last step ignores everything that the others ignore
    for step in _STEPS:
        if match.count >= _ALMOST_ALL * smaller:
            break
        _take(match, step.name, _pairs(*sides, step), scores, labels)
    return match


def _take(
    match: IdMatch, name: str, pairs: pd.DataFrame, scores: pa.Array, labels: pa.Array
) -> bool:
    """Add the matches of a step, unless one of them is ambiguous.

    Args:
        match: What has been matched so far.
        name: What the step ignores.
        pairs: All rows that fit each other, as ``score`` and ``label``.
        scores: (N,) ids as they are written.
        labels: (M,) ids as they are written.

    Returns:
        Whether the step is unambiguous.
    """
    is_open = _is_open(match, pairs)
    for side, other, mine, theirs, ids, others in (
        ("scores", "label", "score", "label", scores, labels),
        ("labels", "score", "label", "score", labels, scores),
    ):
        several = pairs[other].duplicated(keep=False) & pairs[other].isin(pairs[other][is_open])
        if several.any():
            fits = pairs[pairs[other] == pairs[other][several].iloc[0]]
            examples = [ids[int(row)].as_py() for row in fits[mine].iloc[:2]]
            match.skipped.append(
                f"ignoring {name} would be ambiguous: {examples[0]!r} and {examples[1]!r} of the "
                f"{side} fit {others[int(fits[theirs].iloc[0])].as_py()!r}"
            )
            return False
    found = pairs[is_open]
    if len(found):
        match.rows[found["score"]] = found["label"]
        example = _first(scores.take(pa.array(found["score"])), 1)[0].as_py()
        label = match.rows[pc.index(scores, example).as_py()]
        match.steps[name] = (len(found), example, labels[int(label)].as_py())
    return True


def _first(ids: pa.Array, number: int) -> pa.Array:
    """Return the first ids in alphabetical order: the rows of scores come in any order."""
    return ids.take(pc.array_sort_indices(ids)[:number])


def _is_open(match: IdMatch, pairs: pd.DataFrame) -> np.ndarray:
    """Return which pairs have neither of their rows matched yet."""
    is_open: np.ndarray = match.rows[pairs["score"]] < 0
    return is_open & ~np.isin(pairs["label"], match.rows)


def why_unmatched(
    scores: pa.Array, labels: pa.Array, match: IdMatch
) -> tuple[list[str], list[str], str]:
    """Return two unmatched ids of each side, and why such ids don't match."""
    left = scores.filter(pa.array(match.rows < 0))
    right = labels.filter(pa.array(~np.isin(np.arange(len(labels)), match.rows)))
    left, right = _first(left, len(left)), _first(right, len(right))
    sides = [_lower(_decode(_unify_folders(_compose(side)))) for side in (left, right)]
    alike = _equal(*(_without_suffix(_last(side, 1)) for side in sides)).iloc[:2]
    if len(alike):
        examples = [
            [side[int(row)].as_py() for row in dict.fromkeys(alike[name])]
            for side, name in ((left, "score"), (right, "label"))
        ]
        first, second = (
            side[int(alike[name].iloc[0])].as_py()
            for side, name in zip(sides, ("score", "label"), strict=True)
        )
        return examples[0], examples[1], _difference(first, second)
    examples = [side[:2].to_pylist() for side in (left, right)]
    kinds = [
        "numbers" if pc.all(pc.match_substring_regex(side, _NUMBER)).as_py() else "names"
        for side in sides
    ]
    if kinds[0] != kinds[1]:
        why = f"those of the scores are {kinds[0]}, those of the labels {kinds[1]}"
    else:
        why = "they have no file name in common"
    return examples[0], examples[1], f"{why}: are these the labels of the images that were scored?"


def _difference(first: str, second: str) -> str:
    """Describe in which parts two ids of the same base name differ."""
    paths = [path.rpartition("/") for path in (first, second)]
    suffixes = [found[0] if (found := re.search(_SUFFIX, path[2])) else "" for path in paths]
    parts = {"folders": (paths[0][0], paths[1][0]), "suffixes": (suffixes[0], suffixes[1])}
    differ = [name for name, pair in parts.items() if all(pair) and pair[0] != pair[1]]
    if not differ:
        return (
            "they are similar, but which belongs to which is ambiguous: write them in the same way"
        )
    return (
        f"their {' and '.join(differ)} differ: if they are the same images, write the ids of the "
        f"labels without {' and '.join(differ)}"
    )


# Ways of writing ----------------------------------------------------------------------------------


def _compose(ids: pa.Array) -> pa.Array:
    return pc.utf8_normalize(pc.utf8_trim_whitespace(ids), form="NFC")


def _unify_folders(ids: pa.Array) -> pa.Array:
    is_url = pc.match_substring(ids, "://")
    ids = pc.if_else(is_url, pc.replace_substring_regex(ids, r"[?#].*$", ""), ids)
    ids = pc.replace_substring(ids, "\\", "/")
    ids = pc.replace_substring_regex(ids, r"/(\./|/)*", "/")
    return pc.replace_substring_regex(ids, r"^(\./|/)+", "")


def _decode(ids: pa.Array) -> pa.Array:
    if not pc.any(pc.match_substring_regex(ids, "%[0-9A-Fa-f]{2}")).as_py():
        return ids
    decoded = [_unquote(text) if "%" in text else text for text in ids.to_pylist()]
    return _unify_folders(_compose(pa.array(decoded, ids.type)))


def _unquote(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except (
        UnicodeDecodeError
    ):  # with a replacement character for such bytes, different ids would be equal
        return text


def _lower(ids: pa.Array) -> pa.Array:
    return pc.utf8_normalize(pc.utf8_lower(ids), form="NFC")


def _lower_suffix(ids: pa.Array) -> pa.Array:
    stems = _without_suffix(ids)
    lengths = pc.subtract(pc.binary_length(ids), pc.binary_length(stems))
    if not pc.any(pc.greater(lengths, 0)).as_py():
        return ids
    suffixes = pc.utf8_lower(pc.replace_substring_regex(ids, r"^(?s:.*)(\.[^./]*)$", r"\1"))
    return pc.if_else(pc.greater(lengths, 0), pc.binary_join_element_wise(stems, suffixes, ""), ids)


#: Cumulative; the way of writing that each of them ignores.
_SPELLINGS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "blanks around ids and Unicode's forms (NFC, NFD)": _compose,
    "the way folders are written (\\, ./)": _unify_folders,
    "percent-encoding": _decode,
    "the suffix's case": _lower_suffix,
}


# Parts --------------------------------------------------------------------------------------------


def _without_suffix(ids: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(ids, _SUFFIX, "")


def _last(ids: pa.Array, parts: int) -> pa.Array:
    return pc.replace_substring_regex(ids, rf"^.*/((?:[^/]+/){{{parts - 1}}}[^/]+)$", r"\1")


def _equal(scores: pa.Array, labels: pa.Array) -> pd.DataFrame:
    """Return all pairs of equal ids, as rows of ``score`` and ``label``; nulls equal nothing."""
    frames = []
    for side, others, name in ((scores, labels, "score"), (labels, scores, "label")):
        rows = pc.indices_nonzero(pc.is_in(side, value_set=others.drop_null()))
        frames.append(pd.DataFrame({"id": side.take(rows).to_pandas(), name: rows.to_numpy()}))
    left, right = frames
    return left.merge(right, on="id")[["score", "label"]]


def _pairs(scores: pa.Array, labels: pa.Array, step: _Step) -> pd.DataFrame:
    """Return all pairs of ids that are equal except for what the step ignores on one of the sides."""
    if step.case:
        scores, labels = _lower(scores), _lower(labels)
    pairs = []
    for left, right in _by_suffix(scores, labels, step.suffix):
        pairs.append(_equal(left, right))
        if step.folders:
            pairs.append(_equal_ends(left, right))
            flipped = _equal_ends(right, left)
            pairs.append(flipped.rename(columns={"score": "label", "label": "score"}))
    if step.number:
        names = [_last(_without_suffix(side), 1) for side in (scores, labels)]
        named = [(names[0], labels), (scores, names[1])] if step.folders and step.suffix else []
        for left, right in [(scores, labels), *named]:
            pairs.append(_equal(_as_number(left), _as_number(right)))
    return pd.concat(pairs, ignore_index=True).drop_duplicates(ignore_index=True)


def _by_suffix(
    scores: pa.Array, labels: pa.Array, ignored: bool
) -> list[tuple[pa.Array, pa.Array]]:
    if not ignored:
        return [(scores, labels)]
    null = pa.scalar(None, pa.string())
    stems = [_without_suffix(side) for side in (scores, labels)]
    bare = [
        pc.if_else(pc.equal(side, stem), side, null)
        for side, stem in zip((scores, labels), stems, strict=True)
    ]
    return [(scores, labels), (stems[0], bare[1]), (bare[0], stems[1])]


def _equal_ends(longer: pa.Array, shorter: pa.Array) -> pd.DataFrame:
    """Return the pairs where the second id is the end of the first, from one of its folders on."""
    null = pa.scalar(None, pa.string())
    depths, other = (pc.add(pc.count_substring(side, "/"), 1) for side in (longer, shorter))
    pairs = [_equal(longer[:0], shorter[:0])]
    for parts in sorted(pc.unique(other).drop_null().to_pylist()):
        if parts > _MOST_FOLDERS:
            break
        ends = pc.if_else(pc.greater(depths, parts), _last(longer, parts), null)
        pairs.append(_equal(ends, pc.if_else(pc.equal(other, parts), shorter, null)))
    return pd.concat(pairs, ignore_index=True)


def _as_number(ids: pa.Array) -> pa.Array:
    """Return whole numbers without leading zeros and a fraction of zeros; null for other texts."""
    null = pa.scalar(None, pa.string())
    is_number = pc.match_substring_regex(ids, _NUMBER)
    return pc.if_else(is_number, pc.replace_substring_regex(ids, _NUMBER, r"\1"), null)
