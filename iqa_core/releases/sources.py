"""The file formats in which releases keep their labels: CSV, .xlsx, MATLAB."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.io import loadmat

from iqa_core.errors import InputError
from iqa_core.tables.delimited import parse_delimited

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["has_csv_columns", "read_csv", "read_mat", "read_xlsx"]


def read_csv(folder: Folder, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file, without spaces around the cells; an empty cell is "".

    Raises:
        InputError: If it is not delimited text or lacks one of the columns.
    """
    table = parse_delimited(folder.read(name), f"{folder.uri}: {name}").table
    _check_columns(folder, name, columns, table.column_names)
    return [
        {column: (value or "").strip() for column, value in row.items()}
        for row in table.to_pylist()
    ]


def has_csv_columns(folder: Folder, name: str, columns: Sequence[str]) -> bool:
    """Return whether a file is a CSV file with these columns."""
    try:
        read_csv(folder, name, columns)
    except (OSError, ValueError):
        return False
    return True


def _check_columns(folder: Folder, name: str, wanted: Sequence[str], have: Iterable[str]) -> None:
    have = list(have)
    missing = [column for column in wanted if column not in have]
    if missing:
        raise InputError(
            f"{folder.uri}: {name} has no column {missing[0]!r}, but {', '.join(have) or 'none'}: is it "
            "the release's own file?"
        )


def read_xlsx(
    folder: Folder, name: str, columns: Sequence[str], sheet: str | None = None
) -> list[list[Any]]:
    """Return the cells of some columns of a worksheet, row by row.

    Args:
        folder: The release's folder.
        name: The workbook.
        columns: Names of the columns; the first row that has all of them is the header.
        sheet: The worksheet; by default the first.

    Raises:
        InputError: If the sheet or a column is missing, or openpyxl is not installed.
        ValueError: If it is not a workbook.
    """
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            f"{folder.uri}: {name} needs openpyxl: pip install 'distributed-iqa[releases]'"
        ) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(folder.read(name)), read_only=True, data_only=True)
    except Exception as error:  # zipfile's, XML's, openpyxl's own
        raise ValueError(f"not an .xlsx workbook: {error}") from error
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise InputError(
                f"{folder.uri}: {name} has the sheets {', '.join(book.sheetnames)}, but not {sheet}: is "
                "it the release's own file?"
            )
        rows = list((book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True))
    finally:
        book.close()
    for i, row in enumerate(rows):
        texts = ["" if cell is None else str(cell).strip() for cell in row]
        if all(column in texts for column in columns):
            places = [texts.index(column) for column in columns]
            body = [[row[k] if k < len(row) else None for k in places] for row in rows[i + 1 :]]
            return [cells for cells in body if cells[0] is not None]
    first = next((row for row in rows if any(cell is not None for cell in row)), ())
    _check_columns(folder, name, columns, [str(cell).strip() for cell in first if cell is not None])
    raise ValueError("its columns' names are not in one row")


def read_mat(folder: Folder, name: str, variables: Sequence[str]) -> dict[str, list[Any]]:
    """Return variables of a MATLAB file as flat lists; cells of text as text.

    Raises:
        InputError: If a variable is missing.
        ValueError: If it is not a MATLAB file that SciPy reads.
    """
    try:
        content = loadmat(io.BytesIO(folder.read(name)))  # type: ignore[arg-type]
    except (ValueError, NotImplementedError, TypeError) as error:
        raise ValueError(f"not a MATLAB file up to version 7: {error}") from error
    _check_columns(folder, name, variables, (key for key in content if not key.startswith("__")))
    return {
        variable: [_cell(value) for value in np.asarray(content[variable]).ravel()]
        for variable in variables
    }


def _cell(value: Any) -> Any:  # noqa: ANN401 - whatever MATLAB puts into a cell
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    return value.item() if isinstance(value, np.generic) else value
