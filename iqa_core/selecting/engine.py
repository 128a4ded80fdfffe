"""DuckDB over Arrow: SQL on the rows of outputs, in bounded memory, without access to anything else.

DuckDB gets Arrow datasets, so every filesystem of fsspec works. Once they are registered, its own access
to files and networks is switched off, so an expression of a user can't read or write anything. What does
not fit into its memory goes to a temporary folder.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import pyarrow as pa

from iqa_core.columns import IDENTITY
from iqa_core.errors import InputError
from iqa_core.redaction import error_line
from iqa_core.tables.read_ahead import available_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    import pyarrow.dataset as ds

__all__ = ["Engine", "identifier", "is_readable", "same_row", "text"]

_BATCH_ROWS = 50_000
_INTERRUPT_SECONDS = 0.2

T = TypeVar("T")


def identifier(name: str) -> str:
    """Return a name as SQL quotes it.

    >>> identifier("class")
    '"class"'
    """
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a string as SQL quotes it.

    >>> text("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def same_row(first: str, other: str) -> str:
    """Return SQL of whether two relations' rows have the same identity.

    >>> same_row("a", "b")
    'a.manifest_file = b.manifest_file AND a.manifest_row = b.manifest_row'
    """
    return " AND ".join(f"{first}.{column} = {other}.{column}" for column in IDENTITY)


def is_readable(kind: pa.DataType) -> bool:
    """Return whether DuckDB has values of an Arrow type, all of them and so that they can be restored.

    Durations become intervals of microseconds and UUIDs text, which no Arrow type within another is made
    from again.
    """
    if pa.types.is_duration(kind):
        return bool(kind.unit != "ns")
    if (
        pa.types.is_float16(kind)
        or pa.types.is_decimal256(kind)
        or pa.types.is_run_end_encoded(kind)
    ):
        return False
    if pa.types.is_dictionary(kind):
        return is_readable(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return is_readable(kind.storage_type)
    if pa.types.is_nested(kind):
        inner = [kind.field(place).type for place in range(kind.num_fields)]
        return all(
            is_readable(one) and not (pa.types.is_duration(one) or isinstance(one, pa.UuidType))
            for one in inner
        )
    return True


class Engine:
    """A DuckDB of one selection; to be used in a ``with`` statement.

    Args:
        memory: Limit on its memory, such as ``1GB``.
        threads: Number of threads; None is one for each core.

    Raises:
        InputError: If the limit is none that it understands.
    """

    def __init__(self, memory: str = "1GB", threads: int | None = None) -> None:
        self._stack = ExitStack()
        spill = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="iqa-select-", ignore_cleanup_errors=True)
        )
        settings: dict[str, Any] = {
            "memory_limit": memory,
            "temp_directory": spill,
            "threads": threads or available_cpus(),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            # It can't know how many rows an Arrow dataset has, and would hold all of them for a join with a
            # table of one. Each join here has its smaller side on the right.
            "disabled_optimizers": "join_order,build_side_probe_side",
        }
        try:
            self.connection = duckdb.connect(":memory:", config=settings)
        except duckdb.Error as error:
            self._stack.close()
            raise InputError(
                argument="memory", value=memory, limit="an amount of memory", fix="write 1GB, say"
            ) from error
        self._stack.callback(self.connection.close)
        # The machine's own would choose other rows elsewhere.
        self.connection.execute("SET TimeZone = 'UTC'")
        self._thread = self._stack.enter_context(ThreadPoolExecutor(1, "duckdb"))

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def register(self, name: str, dataset: ds.Dataset) -> None:
        """Give a dataset a name; before :meth:`lock`."""
        uuids = [field.name for field in dataset.schema if isinstance(field.type, pa.UuidType)]
        if not uuids:
            self.connection.register(name, dataset)
            return
        # Arrow can't compare UUIDs, but is asked to by DuckDB unless they are computed.
        self.connection.register(f"_iqa_arrow_{name}", dataset)
        columns = map(identifier, uuids)
        computed = ", ".join(f"{column}::VARCHAR::UUID AS {column}" for column in columns)
        self.connection.execute(
            f"CREATE TEMP VIEW {identifier(name)} AS SELECT * REPLACE ({computed}) FROM _iqa_arrow_{name}"
        )

    def lock(self) -> None:
        """Switch off access to files and networks, and further changes of settings."""
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows.

        Raises:
            InputError: If a value can't be computed, or memory or disk are short.
        """
        with _errors_in_one_line():
            return self._interruptible(lambda: self.connection.execute(sql).fetchall())

    def _interruptible(self, action: Callable[[], T]) -> T:
        """Run an action of DuckDB so that Ctrl-C ends it: in the main thread it misses one now and then."""
        running = self._thread.submit(action)
        try:
            return running.result()
        except KeyboardInterrupt:
            while not running.done():
                self.connection.interrupt()
                wait([running], _INTERRUPT_SECONDS)
            raise

    def value(self, sql: str) -> Any:  # noqa: ANN401 - any column's
        """Run a statement and return the first value of its first row."""
        return self.run(sql)[0][0]

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Run a statement and yield its rows as they come.

        Raises:
            InputError: As of :meth:`run`.
        """
        with _errors_in_one_line():
            reader = self._interruptible(
                lambda: self.connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
            )
            while (batch := self._interruptible(lambda: next(reader, None))) is not None:
                yield batch

    def columns(self, sql: str) -> Sequence[tuple[str, str]]:
        """Return names and SQL types of a statement's columns; nothing is computed.

        Raises:
            duckdb.Error: If the statement has no meaning.
        """
        described = self.connection.execute(f"DESCRIBE {sql}").fetchall()
        return [(str(row[0]), str(row[1])) for row in described]


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InputError(
            f"the selection needs more than --memory and the temporary folder have ({error_line(error)}): "
            "raise --memory, or set TMPDIR to a folder with more space"
        ) from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n\nLINE")[0]
        raise InputError(
            f"the selection can't be computed ({error_line(ValueError(reason))}): correct the expressions "
            "(try_cast gives null where a value can't be converted), or restore the part files"
        ) from error
