"""One selection: which rows pass, which are kept, and how many went for what reason.

Rows go through views of one DuckDB: joined (``_iqa_rows``), judged by each condition, passing,
candidates (without the worse of each cluster), graded by the quota. At most identities and keys are held
for a whole output, in DuckDB's tables, which go to disk where memory is short. Ties are decided by
identity, so equal inputs give equal selections, in whatever order the part files are read. Relations that
expressions of a user see have names that no output is known by.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.columns import MANIFEST_FILE, MANIFEST_ROW, MARGINS, OWN_NAMES, SCORES, STATUS
from iqa_core.errors import InputError
from iqa_core.selecting.counts import Counts, Left
from iqa_core.selecting.engine import identifier, same_row, text
from iqa_core.selecting.expressions import ROWS, column_names, condition, expression, finite, number
from iqa_core.selecting.labels import labelling_key
from iqa_core.selecting.quota import allocate, random_key
from iqa_core.selecting.request import CLUSTER, DUPLICATES
from iqa_core.selecting.smallest import find_limits, is_within
from iqa_core.selecting.write import restored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from iqa_core.selecting.clusters import Clusters
    from iqa_core.selecting.engine import Engine
    from iqa_core.selecting.request import Request
    from iqa_core.selecting.sources import ScoreSource

__all__ = ["Selection"]

_ID = f"{MANIFEST_FILE}, {MANIFEST_ROW}"
_SAME = same_row("a", "b")
_OF_OTHERS = (STATUS, "score", "scores")  # columns of further outputs that a manifest gets
_DECILES = 10


class Selection:
    """A request on some outputs.

    Args:
        engine: An engine of its own.
        sources: The outputs; rows of the first one are selected.
        request: What is asked for.
        clusters: Clusters of duplicates.

    Attributes:
        counts: What went and why.
        columns: Names of the columns of the manifest, in order.

    Raises:
        InputError: If an expression has no meaning, or can't be computed.
    """

    def __init__(
        self,
        engine: Engine,
        sources: Sequence[ScoreSource],
        request: Request,
        clusters: Clusters | None = None,
    ) -> None:
        request.check()
        self._engine, self._sources, self._request = engine, sources, request
        self._known = [name for source in sources for name in _known(source)]
        added = list(clusters.columns) if clusters else []
        self._known += column_names(clusters.schema) if clusters else []
        self._join(clusters)
        engine.lock()
        first = sources[0]
        others = [source.name for source in sources[1:]]
        self.columns = [*first.schema.names, *added, *others]
        self._schema = pa.schema([*first.schema, *(clusters.schema if clusters else ())])
        self._expressions()
        self._judge()
        self._drop_worse()
        self._grade()
        self.counts = self._count()

    # Views ----------------------------------------------------------------------------------------

    def _join(self, clusters: Clusters | None) -> None:
        """Make the view of all columns; a further output's are a struct, null where it lacks the row."""
        columns, joins = ["o0.*"], ["output_0 o0"]
        for place, source in enumerate(self._sources):
            self._engine.register(f"output_{place}", source.dataset)
            if place:
                columns.append(f"o{place} AS {identifier(source.name)}")
                joins.append(f"LEFT JOIN output_{place} o{place} ON {same_row('o0', f'o{place}')}")
        if clusters:
            self._engine.register("cluster_rows", clusters.dataset)
            columns += [f"c.{identifier(name)}" for name in clusters.columns]
            joins.append(f"LEFT JOIN cluster_rows c ON {same_row('o0', 'c')}")
        self._is_joined = len(joins) > 1
        self._view(ROWS, f"SELECT {', '.join(columns)} FROM {' '.join(joins)}")
        if clusters:
            clusters.check(self._engine)

    def _expressions(self) -> None:
        request, engine, known = self._request, self._engine, self._known
        self._where = [condition(engine, given, "where", known) for given in request.where]
        self._rank = finite(number(engine, request.rank, "rank", known))
        self._by = [expression(engine, given, "by", known) for given in request.by]
        weight, stratify, best_of = request.weight, request.stratify, request.keep_best_of
        self._weight = weight and finite(number(engine, weight, "weight", known))
        self._stratify = stratify and number(engine, stratify, "stratify", known)
        if best_of == DUPLICATES:
            best_of = CLUSTER
            if CLUSTER not in self.columns:
                raise InputError(
                    f"--keep-best-of {DUPLICATES} needs a column {CLUSTER!r}: give the file of clusters as "
                    "--clusters"
                )
        self._best_of = best_of and expression(engine, best_of, "keep-best-of", known)

    def _judge(self) -> None:
        statuses = ", ".join(map(text, self._request.statuses))
        status = "true" if "any" in self._request.statuses else f"{STATUS} IN ({statuses})"
        judged = [f"{status} AS _iqa_status"]
        judged += [f"{sql} AS _iqa_where_{i}" for i, sql in enumerate(self._where)]
        self._judgements = ["_iqa_status", *(f"_iqa_where_{i}" for i in range(len(self._where)))]
        self._view("_iqa_judged", f"SELECT *, {', '.join(judged)} FROM {ROWS}")
        self._view(
            "_iqa_passing", f"SELECT * FROM _iqa_judged WHERE {' AND '.join(self._judgements)}"
        )

    def _drop_worse(self) -> None:
        """Make the view of candidates: without all but the best row of each cluster."""
        self._worse = 0
        if self._best_of is None:
            self._view("_iqa_candidates", "SELECT * FROM _iqa_passing")
            return
        self._engine.run(
            f"CREATE TEMP TABLE worse AS SELECT {_ID} FROM (SELECT {_ID}, row_number() OVER ("
            f"PARTITION BY _iqa_cluster ORDER BY _iqa_rank DESC NULLS LAST, {_ID}) AS place FROM ("
            f"SELECT {_ID}, {self._rank} AS _iqa_rank, {self._best_of} AS _iqa_cluster FROM _iqa_passing) "
            "WHERE _iqa_cluster IS NOT NULL) WHERE place > 1"
        )
        self._worse = int(self._engine.value("SELECT count(*) FROM worse"))
        self._view(
            "_iqa_candidates", f"SELECT a.* FROM _iqa_passing a ANTI JOIN worse b ON {_SAME}"
        )

    def _grade(self) -> None:
        """Make the view of graded rows: candidates, and whether each is kept."""
        request = self._request
        quota, amount = request.quota, request.amount
        if quota is None or amount is None:
            self._view("_iqa_graded", "SELECT *, true AS _iqa_kept FROM _iqa_candidates")
            return
        fields = ", ".join(f"g{place} := {sql}" for place, sql in enumerate(self._by))
        group = f"struct_pack({fields})" if self._by else "0"
        if quota == "sample":
            key = random_key(request.seed, self._weight and f"({self._weight})")
        else:
            key = self._rank if quota == "bottom" else f"-({self._rank})"
        targets = f"[{amount.sql('n')}]"
        if quota == "for_labelling":
            key, chosen = labelling_key(
                self._engine, self._rank, self._pairs(), request.for_labelling or 0, request.seed
            )
            targets = f"[{chosen}]"
        if self._stratify:
            group = self._strata(self._stratify)
            key = f"CASE WHEN {group} IS NOT NULL THEN {key} END"
        rows = self._keys("keyed", group, key)
        if self._stratify:
            # Without a weight every row has a key, and none need be computed.
            drawn = "key" if self._weight else "grp"
            sizes = self._engine.run(
                f"SELECT grp, count(*) FROM {rows} WHERE {drawn} IS NOT NULL GROUP BY 1"
            )
            total = sum(size for _, size in sizes)
            wanted = int(self._engine.value(f"SELECT {amount.sql(f'{total}::BIGINT')}"))
            shares = allocate(dict(sizes), wanted)
            cases = " ".join(f"WHEN {place} THEN [{rows_}]" for place, rows_ in shares.items())
            targets = f"CASE grp {cases} ELSE [0] END" if shares else "[0]"
        find_limits(self._engine, "limits", rows, targets)
        kept = is_within("r", "l", "_iqa_key")
        self._view(
            "_iqa_graded",
            f"SELECT r.* EXCLUDE (_iqa_grp, _iqa_key), coalesce({kept}, false) AS _iqa_kept "
            f"FROM (SELECT *, {group} AS _iqa_grp, {key} AS _iqa_key FROM _iqa_candidates) r "
            "LEFT JOIN limits l ON r._iqa_grp IS NOT DISTINCT FROM l.grp",
        )

    def _pairs(self) -> list[str]:
        """Return SQL of the first output's pair scores."""
        schema = self._sources[0].schema
        names = [pair.name for pair in schema.field(SCORES).type] if SCORES in schema.names else []
        return [f"{SCORES}.{identifier(name)}" for name in names]

    def _strata(self, values: str) -> str:
        """Return SQL of the decile, from 0, of each row; equal values are in one decile."""
        rows = self._keys("stratified", "0", finite(values))
        each = ", ".join(f"(n * {i} + {_DECILES - 1}) // {_DECILES}" for i in range(1, _DECILES))
        find_limits(self._engine, "deciles", rows, f"[{each}]")
        ends = self._engine.run("SELECT key FROM deciles ORDER BY target")
        steps = " + ".join(
            f"CAST({values} > CAST('{end!r}' AS DOUBLE) AS INTEGER)" for (end,) in ends
        )
        return f"CASE WHEN isfinite({values}) THEN {steps or '0'} END"

    def _keys(self, name: str, group: str, key: str) -> str:
        """Make a relation of the candidates' keys; a table if the rows are expensive to get again."""
        sql = f"SELECT {_ID}, {group} AS grp, {key} AS key FROM _iqa_candidates"
        windows = any(re.search(r"\bover\b", given, re.IGNORECASE) for given in self._request.where)
        # MD5 takes a microsecond a row.
        is_sample = name == "keyed" and self._request.quota in ("sample", "for_labelling")
        is_expensive = is_sample or windows or self._is_joined or self._best_of
        kind = "TABLE" if is_expensive else "VIEW"
        self._engine.run(f"CREATE TEMP {kind} {name} AS {sql}")
        return name

    def _view(self, name: str, sql: str) -> None:
        self._engine.run(f"CREATE TEMP VIEW {name} AS {sql}")

    # Results --------------------------------------------------------------------------------------

    def _count(self) -> Counts:
        judged = self._judgements
        parts = [STATUS, "count(*)"]
        for place in range(1, len(judged)):
            before = " AND ".join(judged[:place])
            parts.append(f"count(*) FILTER (WHERE {before} AND {judged[place]} IS NOT TRUE)")
            parts.append(f"count(*) FILTER (WHERE {before} AND {judged[place]} IS NULL)")
        by_status = self._engine.run(
            f"SELECT {', '.join(parts)} FROM _iqa_judged GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        wanted = self._request.statuses
        other = [row for row in by_status if "any" not in wanted and row[0] not in wanted]
        left = []
        if "any" not in wanted:
            detail = ", ".join(f"{row[0]} {row[1]:,}" for row in other)
            left.append(
                Left(f"status is not {' or '.join(wanted)}", sum(row[1] for row in other), detail)
            )
        for place, given in enumerate(self._request.where):
            false, null = (sum(row[2 + 2 * place + i] for row in by_status) for i in (0, 1))
            detail = f"{null:,} of them null, neither true nor false" if null else ""
            left.append(Left(f"--where {given!r}", false, detail))
        if self._request.keep_best_of is not None:
            left.append(Left(f"--keep-best-of {self._request.keep_best_of}", self._worse))
        rows = sum(row[1] for row in by_status)
        kept = rows - sum(one.rows for one in left)
        threshold = None
        if self._request.quota is not None:
            kept, unranked = self._engine.run(
                f"SELECT count(*) FILTER (WHERE {is_within('r', 'l')}), count(*) FILTER (WHERE "
                "r.key IS NULL) FROM keyed r LEFT JOIN limits l ON r.grp IS NOT DISTINCT FROM l.grp"
            )[0]
            if unranked:
                left.append(Left(self._why_unranked(), unranked))
            threshold = self._threshold()
            detail = (
                ""
                if threshold is None
                else f"{self._request.rank} of the last one kept: {threshold:.6g}"
            )
            rest = rows - sum(one.rows for one in left) - kept
            left.append(Left(self._request.described, rest, detail))
        return Counts(rows, left, kept, threshold)

    def _why_unranked(self) -> str:
        if self._request.quota != "sample":
            return f"no finite {self._request.rank}"
        names = [n for n in (self._request.weight, self._request.stratify) if n is not None]
        return f"no finite {' or '.join(names)}, or a weight of 0 or below"

    def _threshold(self) -> float | None:
        if self._request.quota in ("sample", "for_labelling") or self._by:
            return None
        found = self._engine.run("SELECT key FROM limits")
        sign = 1 if self._request.quota == "bottom" else -1
        return sign * float(found[0][0]) + 0.0 if found else None

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the selected rows, by identity, with the columns of :attr:`columns` and their types."""
        wanted = []
        structs = {source.name: source for source in self._sources[1:]}
        for name in self.columns:
            if name in structs:
                inner = [c for c in _OF_OTHERS if c in structs[name].schema.names]
                fields = ", ".join(f"{c} := {identifier(name)}.{c}" for c in inner)
                wanted.append(f"struct_pack({fields}) AS {identifier(name)}")
            elif pa.types.is_duration(self._schema.field(name).type):
                wanted.append(f"epoch_us({identifier(name)}) AS {identifier(name)}")
            else:
                wanted.append(identifier(name))
        sql = f"SELECT {', '.join(wanted)} FROM _iqa_graded WHERE _iqa_kept ORDER BY {_ID}"
        yield from restored(self._engine.batches(sql), self._schema)

    def examples(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """Return rows nearest to the limit by rank, by title: kept ones, and lost ones by reason.

        They have the output's own columns, without kept ones.

        Of a ``bottom`` quota, nearest are the highest kept and the lowest lost; else the reverse.
        """
        kept, lost = ("DESC", "ASC") if self._request.quota == "bottom" else ("ASC", "DESC")
        fails = " OR ".join(f"{name} IS NOT TRUE" for name in self._judgements[1:])
        parts = {"Kept, nearest to the limit": ("_iqa_graded WHERE _iqa_kept", kept)}
        if self._request.quota is not None:
            parts["Left out by the quota"] = ("_iqa_graded WHERE NOT _iqa_kept", lost)
        if fails:
            parts["Left out by a condition"] = (
                f"_iqa_judged WHERE _iqa_status AND ({fails})",
                lost,
            )
        if self._worse:
            sql = f"(SELECT a.* FROM _iqa_passing a SEMI JOIN worse b ON {_SAME}) _iqa_lost WHERE true"
            parts["Left out for a better one of its cluster"] = (sql, lost)
        own = OWN_NAMES - {MARGINS}  # a kept column may hold what Python has no value for
        first = [name for name in self._sources[0].schema.names if name in own]
        columns = ", ".join(map(identifier, first))
        found = {}
        for title, (rows, order) in parts.items():
            sql = (
                f"SELECT {columns}, {self._rank} AS _iqa_rank FROM {rows} AND {self._rank} IS NOT NULL "
                f"ORDER BY _iqa_rank {order}, {_ID} LIMIT {count}"
            )
            batches = list(self._engine.batches(sql))
            found[title] = [row for batch in batches for row in batch.to_pylist()]
        return found


def _known(source: ScoreSource) -> list[str]:
    prefix = f"{column_names_of(source.name)}." if source.name else ""
    return column_names(source.schema, prefix)


def column_names_of(name: str) -> str:
    """Return a name as an expression writes it."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else identifier(name)
