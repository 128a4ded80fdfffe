"""The rows with the k smallest keys of each group, exactly, without sorting and in bounded memory.

Three passes over the keys: the range of each group, a histogram of it, and the values of the one bin that
holds the k-th smallest. Among equal keys the row's identity decides. So a limit (a key, and an identity
among equal keys) says which rows are kept, and no row has to be held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqa_core.selecting.engine import Engine

__all__ = ["find_limits", "is_within"]

_MOST_BINS = 65_536
_LEAST_BINS = 64
_ALL_BINS = 4_194_304


def find_limits(engine: Engine, name: str, rows: str, targets: str) -> None:
    """Make a table with the limit of each target.

    Args:
        engine: Where the rows are.
        name: Of the table: ``grp``, ``target``, ``key`` (of the k-th smallest), and ``last_file``,
            ``last_row``, the identity of the last row among those of that key; null where all of them are
            within.
        rows: A relation with ``grp``, ``key`` (DOUBLE, finite or null), ``manifest_file`` and
            ``manifest_row``. Rows without a key are never within.
        targets: SQL of expressions over ``grp`` and ``n`` (rows of the group that have a key) that returns
            a list of k; target i is the i-th of them, from 1. A k of 0 or below has no limit.
    """
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {name}_groups AS SELECT grp, min(key) AS low, max(key) AS high, "
        f"count(key) AS n FROM {rows} WHERE key IS NOT NULL GROUP BY grp"
    )
    groups = int(engine.value(f"SELECT count(*) FROM {name}_groups"))
    bins = max(_LEAST_BINS, min(_MOST_BINS, _ALL_BINS // max(1, groups)))
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {name}_targets AS SELECT grp, target, least(k, n) AS k FROM ("
        f"SELECT grp, n, unnest(ks) AS k, generate_subscripts(ks, 1) AS target "
        f"FROM (SELECT grp, n, {targets} AS ks FROM {name}_groups)) WHERE k > 0"
    )
    # Monotone in the key whatever is rounded, and equal in every pass; halves, as the range may overflow.
    bin_ = (
        "CASE WHEN g.high * 0.5 > g.low * 0.5 THEN CAST(least(floor((r.key * 0.5 - g.low * 0.5) / "
        f"(g.high * 0.5 - g.low * 0.5) * {bins}), {bins - 1}) AS INTEGER) ELSE 0 END"
    )
    joined = f"{rows} r JOIN {name}_groups g ON r.grp IS NOT DISTINCT FROM g.grp"
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {name}_bins AS SELECT grp, bin, c, "
        "sum(c) OVER (PARTITION BY grp ORDER BY bin) - c AS before FROM ("
        f"SELECT r.grp AS grp, {bin_} AS bin, count(*) AS c FROM {joined} WHERE r.key IS NOT NULL "
        "GROUP BY 1, 2)"
    )
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {name}_hit AS SELECT t.grp, t.target, t.k, b.bin, b.before "
        f"FROM {name}_targets t JOIN {name}_bins b ON t.grp IS NOT DISTINCT FROM b.grp "
        "WHERE b.before < t.k AND t.k <= b.before + b.c"
    )
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {name}_values AS SELECT grp, bin, key, c, "
        "sum(c) OVER (PARTITION BY grp, bin ORDER BY key) - c AS before FROM ("
        f"SELECT x.grp AS grp, x.bin AS bin, x.key AS key, count(*) AS c FROM ("
        f"SELECT r.grp AS grp, {bin_} AS bin, r.key AS key FROM {joined} WHERE r.key IS NOT NULL) x "
        f"SEMI JOIN {name}_hit h ON x.grp IS NOT DISTINCT FROM h.grp AND x.bin = h.bin GROUP BY 1, 2, 3)"
    )
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {name}_keys AS SELECT h.grp, h.target, v.key, "
        "h.k - h.before - v.before AS need, v.c "
        f"FROM {name}_hit h JOIN {name}_values v ON h.grp IS NOT DISTINCT FROM v.grp AND h.bin = v.bin "
        "WHERE h.before + v.before < h.k AND h.k <= h.before + v.before + v.c"
    )
    ties = f"FROM {name}_keys k WHERE k.need < k.c"
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {name}_ties AS SELECT grp, target, manifest_file, "
        "manifest_row FROM (SELECT k.grp, k.target, k.need, r.manifest_file, r.manifest_row, "
        "row_number() OVER ("
        "PARTITION BY k.grp, k.target ORDER BY r.manifest_file, r.manifest_row) AS place "
        f"FROM {rows} r JOIN (SELECT * {ties}) k ON r.grp IS NOT DISTINCT FROM k.grp AND r.key = k.key"
        ") WHERE place = need"
        if engine.value(f"SELECT count(*) {ties}")
        else f"CREATE OR REPLACE TEMP TABLE {name}_ties AS SELECT grp, target, NULL::VARCHAR AS "
        f"manifest_file, NULL::BIGINT AS manifest_row FROM {name}_keys WHERE false"
    )
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT k.grp, k.target, k.key, "
        "t.manifest_file AS last_file, t.manifest_row AS last_row "
        f"FROM {name}_keys k LEFT JOIN {name}_ties t "
        "ON k.grp IS NOT DISTINCT FROM t.grp AND k.target = t.target"
    )
    for step in ("groups", "targets", "bins", "hit", "values", "keys", "ties"):
        engine.run(f"DROP TABLE {name}_{step}")


def is_within(row: str, limit: str, key: str = "key") -> str:
    """Return SQL of whether a row is within a limit, given the aliases of both and the row's key."""
    key = f"{row}.{key}"
    return (
        f"({key} < {limit}.key OR ({key} = {limit}.key AND ({limit}.last_file IS NULL OR "
        f"{row}.manifest_file < {limit}.last_file OR ({row}.manifest_file = {limit}.last_file AND "
        f"{row}.manifest_row <= {limit}.last_row))))"
    )
