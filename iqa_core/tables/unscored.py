"""The last check before rows are written: no row is ``ok`` without a finite score or features."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import (
    EMBEDDING,
    ERROR,
    NO_FINITE_SCORE,
    SCORE,
    STATUS,
    Kind,
    names_of,
)
from iqa_core.errors import Status

__all__ = ["unscored_as_errors"]


def unscored_as_errors(table: pa.Table) -> pa.Table:
    """Set the status ``model_error`` on rows that are ``ok`` but have no finite score or no features.

    Args:
        table: Rows of an output, with ``status`` and ``error``, and ``score``, ``embedding`` or both.

    Returns:
        The rows; where a score was not finite, all of the row's scores are null.
    """
    wrong = pa.chunked_array([pa.repeat(False, len(table))])
    if SCORE in table.column_names:
        wrong = pc.invert(pc.fill_null(pc.is_finite(table.column(SCORE)), False))
    if EMBEDDING in table.column_names:
        wrong = pc.or_(wrong, pc.is_null(table.column(EMBEDDING)))
    wrong = pc.and_(wrong, pc.equal(table.column(STATUS), Status.OK.value))
    if not pc.any(wrong).as_py():
        return table
    for name, value in (
        (STATUS, Status.MODEL_ERROR.value),
        (ERROR, NO_FINITE_SCORE),
        *((name, None) for name in names_of(Kind.SCORE) if name in table.column_names),
    ):
        field = table.schema.field(name)
        column = pc.if_else(wrong, pa.scalar(value, field.type), table.column(name))
        table = table.set_column(table.schema.get_field_index(name), field, column)
    return table
