"""The columns that options add to scores: ``--calibration`` and ``--reasons``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqa_core.tables.schema import ExtraColumn

    from .config import ColumnOptions

__all__ = ["extra_columns"]


def extra_columns(config: ColumnOptions) -> list[ExtraColumn]:
    """Return the further columns that a command's options ask for.

    Raises:
        InputError: If the file of a calibration can't be read.
    """
    found: list[ExtraColumn] = []
    if config.reasons:
        from iqa_core.tables.reasons import REASONS

        found += REASONS
    if config.calibration is not None:
        from iqa_core.evaluation.calibration_file import CalibrationFile, calibration_columns

        found += calibration_columns(CalibrationFile.read(config.calibration))
    return found
