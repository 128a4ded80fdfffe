"""The columns that ``--calibration`` adds to scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqa_core.tables.schema import ExtraColumn

    from .config import CalibrationOptions

__all__ = ["calibrated_columns"]


def calibrated_columns(config: CalibrationOptions) -> list[ExtraColumn]:
    """Return the columns of a command's calibration; none without one.

    Raises:
        InputError: If its file can't be read.
    """
    if config.calibration is None:
        return []
    from iqa_core.evaluation.calibration_file import CalibrationFile, calibration_columns

    return calibration_columns(CalibrationFile.read(config.calibration))
