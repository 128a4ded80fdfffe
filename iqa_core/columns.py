"""The table of output columns: from it come the schema, the readers' requirements and the documentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

__all__ = [
    "COLUMNS",
    "CONTENT_HASH",
    "DESCRIPTOR",
    "DESCRIPTOR_WIDTH",
    "EMBEDDING",
    "ERROR",
    "HEIGHT",
    "IDENTITY",
    "IMAGE",
    "IMAGE_ID",
    "MANIFEST_FILE",
    "MANIFEST_ROW",
    "MARGINS",
    "NO_FINITE_SCORE",
    "OWN_NAMES",
    "SCORE",
    "SCORES",
    "SCORE_LOW",
    "SCORE_SPREAD",
    "STATUS",
    "URI",
    "VIEWS",
    "VIEW_LEVELS",
    "WIDTH",
    "Column",
    "Contents",
    "Kind",
    "Reader",
    "fields",
    "markdown_table",
    "names_of",
    "required_by",
]

# Columns of manifests
URI = "uri"
IMAGE = "image"
IMAGE_ID = "image_id"

# Further columns of outputs
MANIFEST_FILE = "manifest_file"
MANIFEST_ROW = "manifest_row"
STATUS = "status"
ERROR = "error"
SCORE = "score"
SCORES = "scores"
MARGINS = "margins"
#: Of several views of an image: the lowest score, and the standard deviation.
SCORE_LOW = "score_low"
SCORE_SPREAD = "score_spread"
WIDTH = "width"
HEIGHT = "height"
CONTENT_HASH = "content_hash"
DESCRIPTOR = "descriptor"
#: Values of a descriptor.
DESCRIPTOR_WIDTH = 168
_DESCRIPTOR_TYPE = pa.list_(pa.int8(), DESCRIPTOR_WIDTH)
EMBEDDING = "embedding"
#: Features of degraded copies (V x D, flat), and how strongly each was degraded (V).
VIEWS = "views"
VIEW_LEVELS = "view_levels"

#: A row's identity is its place in the manifest: it is unique without an id column, and it
#: costs no memory to check (see ``iqa_core.tables.rows``).
IDENTITY = (MANIFEST_FILE, MANIFEST_ROW)

#: The ``error`` of a row whose image was encoded, but has no score.
NO_FINITE_SCORE = (
    "the model's features for this image are missing, not finite or not of length 1, or their score "
    "is not finite"
)


class Kind(StrEnum):
    """The kind of a column."""

    IDENTITY = "identity"
    OUTCOME = "outcome"
    SCORE = "score"
    SIZE = "size"
    CONTENT = "content"
    FEATURE = "feature"
    VIEW = "view"


class Reader(StrEnum):
    """Readers that refuse an output without a column."""

    AUDIT = "audit"
    EVALUATION = "evaluation"
    REPORT = "report"


@dataclass(frozen=True)
class Contents:
    """The content of an output, which determines the columns and their types.

    Attributes:
        image_id: Type of the manifest's ``image_id``.
        pairs: Names of the prompt pairs; none leaves out the score columns.
        embedding: Width D of the image features; None leaves them out.
        views: Number V of degraded copies whose features are stored; 0 leaves them out.
        hashes: Whether it has the hash of each image's bytes.
        crops: Number of views that were scored of each image.
        descriptors: Whether it has the descriptor of what each image shows.
    """

    image_id: pa.DataType
    pairs: tuple[str, ...] = ()
    embedding: int | None = None
    views: int = 0
    hashes: bool = False
    crops: int = 1
    descriptors: bool = False


#: Returns a column's type in an output, None where the output does not have the column.
TypeRule = Callable[[Contents], pa.DataType | None]


@dataclass(frozen=True)
class Column:
    """One column that outputs have.

    Attributes:
        name: Its name.
        type: Its Arrow type, or the rule that returns the type for an output's contents.
        kind: Its kind.
        doc: What it holds, in Markdown.
        type_name: The type in the documentation.
        nullable: Whether a row may have no value.
        required_by: Readers that refuse an output without it.
    """

    name: str
    type: pa.DataType | TypeRule
    kind: Kind
    doc: str
    type_name: str
    nullable: bool = True
    required_by: tuple[Reader, ...] = ()

    def field(self, contents: Contents) -> pa.Field | None:
        """Return its Arrow field in an output, None where the output does not have it."""
        kind = self.type if isinstance(self.type, pa.DataType) else self.type(contents)
        return None if kind is None else pa.field(self.name, kind, nullable=self.nullable)


def _score(contents: Contents) -> pa.DataType | None:
    return pa.float32() if contents.pairs else None


def _per_pair(contents: Contents) -> pa.DataType | None:
    if not contents.pairs:
        return None
    return pa.struct([(name, pa.float32()) for name in contents.pairs])


def _of_crops(contents: Contents) -> pa.DataType | None:
    return pa.float32() if contents.pairs and contents.crops > 1 else None


def _embedding(contents: Contents) -> pa.DataType | None:
    if contents.embedding is None:
        return None
    return pa.list_(pa.float16(), contents.embedding)


def _views(contents: Contents) -> pa.DataType | None:
    if contents.embedding is None or not contents.views:
        return None
    return pa.list_(pa.float16(), contents.views * contents.embedding)


def _view_levels(contents: Contents) -> pa.DataType | None:
    if contents.embedding is None or not contents.views:
        return None
    return pa.list_(pa.int8(), contents.views)


_EVERY_READER = (Reader.AUDIT, Reader.EVALUATION, Reader.REPORT)

#: Every column that an output may have, in the output's order.
COLUMNS = (
    Column(
        MANIFEST_FILE,
        pa.string(),
        Kind.IDENTITY,
        "file of the manifest, relative to the manifest's folder",
        "string",
        nullable=False,
        required_by=_EVERY_READER,
    ),
    Column(
        MANIFEST_ROW,
        pa.int64(),
        Kind.IDENTITY,
        "row in that file, from 0; with `manifest_file` the row's identity",
        "int64",
        nullable=False,
        required_by=_EVERY_READER,
    ),
    Column(
        IMAGE_ID,
        lambda contents: contents.image_id,
        Kind.IDENTITY,
        "the manifest's `image_id`, null if it has none",
        "as in the manifest",
    ),
    Column(
        URI,
        pa.string(),
        Kind.IDENTITY,
        "where the image was read, without secrets; null for inline images",
        "string",
        required_by=(Reader.REPORT,),
    ),
    Column(
        STATUS,
        pa.string(),
        Kind.OUTCOME,
        "`ok`, or the kind of failure",
        "string",
        nullable=False,
        required_by=_EVERY_READER,
    ),
    Column(
        ERROR,
        pa.string(),
        Kind.OUTCOME,
        "what happened, in one line; null if `ok`",
        "string",
        required_by=(Reader.REPORT,),
    ),
    Column(
        SCORE,
        _score,
        Kind.SCORE,
        "mean over the pairs, 0 to 1, higher is better; null unless `ok`",
        "float32",
        required_by=(Reader.EVALUATION, Reader.REPORT),
    ),
    Column(
        SCORES,
        _per_pair,
        Kind.SCORE,
        "each pair's score, 0 to 1",
        "struct of float32",
        required_by=(Reader.REPORT,),
    ),
    Column(MARGINS, _per_pair, Kind.SCORE, "each pair's logit margin", "struct of float32"),
    Column(
        SCORE_LOW,
        _of_crops,
        Kind.SCORE,
        "lowest score of a view, with `--crops`; the columns before it are means over views then",
        "float32",
    ),
    Column(
        SCORE_SPREAD,
        _of_crops,
        Kind.SCORE,
        "standard deviation of the score over views, with `--crops`",
        "float32",
    ),
    Column(WIDTH, pa.int32(), Kind.SIZE, "pixels, as stored, after orientation", "int32"),
    Column(HEIGHT, pa.int32(), Kind.SIZE, "pixels, as stored, after orientation", "int32"),
    Column(
        CONTENT_HASH,
        lambda contents: pa.string() if contents.hashes else None,
        Kind.CONTENT,
        "BLAKE2b of the encoded image's bytes (128 bits, hexadecimal), with `--hash`; null if none were "
        "read",
        "string",
    ),
    Column(
        DESCRIPTOR,
        lambda contents: _DESCRIPTOR_TYPE if contents.descriptors else None,
        Kind.FEATURE,
        "low frequencies of the image, by which near copies are found, with `--descriptors`; null without "
        "contrast",
        "list of int8",
    ),
    Column(
        EMBEDDING,
        _embedding,
        Kind.FEATURE,
        "unit image features (D), with `--embeddings` and of `iqa embed`",
        "list of float16",
    ),
    Column(
        VIEWS,
        _views,
        Kind.VIEW,
        "features of V degraded copies (V x D, flat), with `iqa embed --views`",
        "list of float16",
    ),
    Column(
        VIEW_LEVELS,
        _view_levels,
        Kind.VIEW,
        "how strongly each of these copies was degraded (V)",
        "list of int8",
    ),
)

#: Names that no other column of an output has.
OWN_NAMES = frozenset(column.name for column in COLUMNS)


def fields(contents: Contents) -> list[pa.Field]:
    """Return the Arrow fields of an output's own columns, in order."""
    found = (column.field(contents) for column in COLUMNS)
    return [field for field in found if field is not None]


def names_of(*kinds: Kind) -> tuple[str, ...]:
    """Return the names of the columns of some kinds, in the output's order."""
    return tuple(column.name for column in COLUMNS if column.kind in kinds)


def required_by(reader: Reader) -> tuple[str, ...]:
    """Return the names of the columns that a reader can't do without, in the output's order."""
    return tuple(column.name for column in COLUMNS if reader in column.required_by)


def markdown_table() -> str:
    """Return the documentation's table of the output's columns."""
    rows = [
        ("column", "type", "kind", "what it holds"),
        ("---", "---", "---", "---"),
        *((f"`{c.name}`", c.type_name, c.kind.value, c.doc) for c in COLUMNS),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
