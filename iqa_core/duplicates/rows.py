"""The images of an output, in the order of their identity, with what duplicates are found by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import (
    CONTENT_HASH,
    DESCRIPTOR,
    EMBEDDING,
    IMAGE_ID,
    MANIFEST_FILE,
    MANIFEST_ROW,
    STATUS,
    URI,
)
from iqa_core.errors import InputError, Status
from iqa_core.redaction import error_line
from iqa_core.storage.folder import Folder
from iqa_core.tables.feature_cache import FeatureCache
from iqa_core.tables.parts import PARTS, PartFiles
from iqa_core.tables.plan import read_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ImageRows", "read_image_rows"]

#: A row's key is the rank of its manifest file and, in these low bits, its row number.
_ROW_BITS = 40
_HASH_DIGITS = 32


@dataclass(frozen=True, eq=False)
class ImageRows:
    """The N rows of an output that have status ``ok``, sorted by manifest file and row.

    Attributes:
        hashes: (N, 2) uint64, the hash of each image's bytes; None if the output has none.
        features: (N, D) of any length: float16 features of a model, NaN where a row has none, or int8
            descriptors, 0 where a row has none; None if near duplicates are not asked for.
    """

    hashes: np.ndarray[Any, np.dtype[np.uint64]] | None
    features: np.ndarray | None
    _parts: PartFiles
    _ranks: Mapping[str, int]
    _keys: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self._keys)

    def identities(self, places: np.ndarray) -> pa.Table:
        """Read who some rows are.

        Args:
            places: (M,) positions among the N rows, ascending.

        Returns:
            M rows with ``manifest_file``, ``manifest_row``, ``image_id`` and ``uri``, in their order.

        Raises:
            InputError: If a part file can't be read.
        """
        names = self._parts.names()
        schema = self._parts.schema(names[0])
        columns = [MANIFEST_FILE, MANIFEST_ROW, IMAGE_ID, URI]
        wanted = self._keys[places]
        found = [pa.schema([schema.field(name) for name in columns]).empty_table()]
        keys = [np.empty(0, np.int64)]
        for table in self._parts.tables([*columns, STATUS], names):
            table = table.filter(pc.equal(table.column(STATUS), Status.OK.value)).select(columns)
            own = _keys_of(table, self._ranks)
            chosen = np.isin(own, wanted)
            found.append(table.filter(pa.array(chosen)))
            keys.append(own[chosen])
        order = np.argsort(np.concatenate(keys), kind="stable")
        return pa.concat_tables(found).take(pa.array(order))


def read_image_rows(
    scores: str, features: str | None = None, *, near: bool = True, of_near: str = ""
) -> ImageRows:
    """Read what duplicates are found by.

    Holds 32 bytes a row, and 168 for a descriptor or 2 for each value of a model's features.

    Args:
        scores: Output folder of `iqa score` or `iqa embed`.
        features: Output folder of `iqa embed` or of `iqa score --embeddings`, of the same manifest, to
            compare features instead of descriptors.
        near: Whether near duplicates are wanted.
        of_near: Options that have an effect on near duplicates only; if it is not empty, there must be
            features or descriptors.

    Raises:
        InputError: If a folder can't be read or holds no rows, the two are of different manifests, or there
            is neither a column of hashes nor one of features, or one that this program has not written.
    """
    folder = Folder.given(scores, "scores")
    parts = PartFiles(folder, f"--scores {scores}")
    try:
        names = parts.names()
        plan = read_plan(folder)
    except OSError as error:
        raise InputError(f"--scores {scores} can't be read: {error_line(error)}") from error
    if not names:
        raise InputError(f"--scores {scores} holds no {PARTS}: give the output of `iqa score`")
    schema = parts.schema(names[0])
    has_hashes = CONTENT_HASH in schema.names
    has_descriptors = near and features is None and DESCRIPTOR in schema.names
    if not has_hashes and not has_descriptors and (features is None or not near):
        raise InputError(
            f"--scores {scores} has neither a column {CONTENT_HASH} nor {DESCRIPTOR}: score with --hash to "
            "find equal files, with --descriptors to find near copies"
        )
    if of_near and features is None and not has_descriptors:
        raise InputError(
            f"{of_near}: there is no near copy to find, as --scores {scores} has no column {DESCRIPTOR}: "
            "score with --descriptors, give --features, or leave it out"
        )
    cache = None
    if features is not None and near:
        try:
            cache = FeatureCache(features)
        except OSError as error:
            raise InputError(f"--features {features} can't be read: {error_line(error)}") from error
        _check_same_manifest(folder, scores, cache, features)
    files: dict[str, int] = {}
    codes, numbers, digests, described = [], [], [], []
    columns = [MANIFEST_FILE, MANIFEST_ROW, STATUS]
    columns += [CONTENT_HASH] * has_hashes + [DESCRIPTOR] * has_descriptors
    rows = 0
    for table in parts.tables(columns, names):
        rows += len(table)
        table = table.filter(pc.equal(table.column(STATUS), Status.OK.value))
        codes.append(_codes(table.column(MANIFEST_FILE), files))
        numbers.append(table.column(MANIFEST_ROW).to_numpy())
        if has_hashes:
            digests.append(_as_numbers(table.column(CONTENT_HASH), scores))
        if has_descriptors:
            described.append(_as_rows(table.column(DESCRIPTOR), scores))
    ranks = {name: rank for rank, name in enumerate(sorted(files))}
    rank_of = np.array([ranks[name] for name in files], dtype=np.int64)
    keys = (rank_of[np.concatenate(codes)] << _ROW_BITS) | np.concatenate(numbers)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    if twice := int((keys[1:] == keys[:-1]).sum()):
        raise InputError(
            f"--scores {scores} holds {twice:,} rows twice: run the command that wrote it once more, which "
            "removes them"
        )
    if (missing := int(plan.get("rows", 0)) - rows) > 0:
        raise InputError(
            f"--scores {scores} lacks {missing:,} rows of its manifest: finish it by the command that "
            "wrote it"
        )
    hashes = np.concatenate(digests)[order] if has_hashes else None
    found = np.concatenate(described)[order] if has_descriptors else None
    if cache is not None:
        found = _read_features(cache, ranks, keys)
    return ImageRows(hashes, found, parts, ranks, keys)


def _codes(column: pa.ChunkedArray, files: dict[str, int]) -> np.ndarray:
    """Return a number for each file name, and add new names to ``files``."""
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    for name in names:
        files.setdefault(name, len(files))
    code = np.array([files[name] for name in names], dtype=np.int64)
    numbers: np.ndarray = code[encoded.indices.to_numpy()] if len(code) else np.empty(0, np.int64)
    return numbers


def _keys_of(table: pa.Table, ranks: Mapping[str, int]) -> np.ndarray:
    """Return the key of each row, -1 for files that are not in the output."""
    files: dict[str, int] = {}
    codes = _codes(table.column(MANIFEST_FILE), files)
    rank_of = np.array([ranks.get(name, -1) for name in files] or [0], dtype=np.int64)
    rank = rank_of[codes]
    keys: np.ndarray = np.where(
        rank < 0, -1, (rank << _ROW_BITS) | table.column(MANIFEST_ROW).to_numpy()
    )
    return keys


def _as_numbers(column: pa.ChunkedArray, scores: str) -> np.ndarray:
    """Return hashes of 32 hexadecimal digits as (N, 2) uint64; scores is their output, for messages."""
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise _foreign(scores, CONTENT_HASH, f"it is of type {kind}", "--hash")
    hexadecimal = pc.match_substring_regex(column, f"^[0-9a-f]{{{_HASH_DIGITS}}}$")
    if not pc.all(pc.fill_null(hexadecimal, False), min_count=0).as_py():
        why = f"it has values other than {_HASH_DIGITS} hexadecimal digits"
        raise _foreign(scores, CONTENT_HASH, why, "--hash")
    text = "".join(column.to_pylist())
    return np.frombuffer(bytes.fromhex(text), dtype=">u8").astype(np.uint64).reshape(-1, 2)


def _foreign(scores: str, column: str, why: str, option: str) -> InputError:
    return InputError(
        f"--scores {scores} has a column {column} that is not of {option} ({why}): score with {option}, "
        f"and rename the manifest's column {column}"
    )


def _as_rows(column: pa.ChunkedArray, scores: str) -> np.ndarray:
    """Return descriptors as (N, D) int8, 0 where a row has none; scores is as of hashes."""
    kind = column.type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.int8():
        raise _foreign(scores, DESCRIPTOR, f"it is of type {kind}", "--descriptors")
    given = column.combine_chunks()
    rows = np.zeros((len(given), given.type.list_size), np.int8)
    valid = given.is_valid().to_numpy(zero_copy_only=False)
    rows[valid] = given.drop_null().flatten().to_numpy().reshape(-1, rows.shape[1])
    return rows


def _read_features(cache: FeatureCache, ranks: Mapping[str, int], keys: np.ndarray) -> np.ndarray:
    features = np.full((len(keys), cache.width), np.nan, dtype=np.float16)
    for read in cache.blocks([]):
        block = read()
        own = _keys_of(block.rows, ranks)
        places = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
        there = keys[places] == own if len(keys) else np.zeros(len(own), bool)
        features[places[there]] = block.features[there]
    if len(keys) and not np.isfinite(features[:, 0]).any():
        raise InputError(f"the rows of --scores have no {EMBEDDING} in --features")
    return features


def _check_same_manifest(folder: Folder, scores: str, cache: FeatureCache, features: str) -> None:
    """Refuse features of another manifest: a row's identity is its place in the manifest."""

    def files(of: Folder) -> dict[str, tuple[int, int]]:
        plan = read_plan(of).get("files", [])
        return {file["name"]: (file.get("rows") or 0, file.get("size") or 0) for file in plan}

    ours, theirs = files(folder), files(cache.folder)
    for name in ours.keys() & theirs.keys():
        if ours[name] != theirs[name]:
            raise InputError(
                f"--features {features} and --scores {scores} are of different manifests: their file "
                f"{name} has {theirs[name][0]:,} and {ours[name][0]:,} rows"
            )
    if ours and theirs and not ours.keys() & theirs.keys():
        raise InputError(
            f"--features {features} and --scores {scores} are of different manifests: give features that "
            "were made from the same one"
        )
