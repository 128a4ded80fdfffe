"""Expressions of users: what is refused, and how it is said."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.selecting.engine import Engine
from iqa_core.selecting.expressions import column_names


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"where": ("scoer > 0.5",)},
            r"no column 'scoer': did you mean score or scores\? Text goes .* The columns",
        ),
        ({"where": ("scores.nois > 0",)}, r"no column 'nois': did you mean scores\.noise"),
        ({"where": ("late.score > 0",)}, r"no column 'late'\. The columns are manifest_file, "),
        (
            {"where": ('uri = "china"',)},
            r"no column 'china'\. Text goes in single quotes: 'china'\. The columns are",
        ),
        ({"where": ("status == ok",)}, r"no column 'ok'\. Text goes in single quotes: 'ok'\."),
        ({"where": ('uri = "it\'s"',)}, r"Text goes in single quotes: 'it''s'\."),
        ({"where": ("score",)}, "is a float, not a condition: write a comparison"),
        (
            {"where": ("score >",)},
            r"where 'score >': syntax error .* \(SQL of DuckDB",
        ),
        ({"where": ("1) or (1",)}, "syntax error at or near"),
        ({"where": ("score > 0, width > 0",)}, "only a single expression"),
        (
            {"where": ("score > 0; drop table limits",)},
            r"single SELECT statement|more than one statement",
        ),
        ({"where": ("nothing(score) > 0",)}, "Scalar Function with name nothing does not exist"),
        ({"where": ("class > 5",)}, "Cannot compare values of type VARCHAR and type INTEGER"),
        ({"rank": "class", "best": 5}, "rank 'class' is a varchar, not a number"),
        ({"rank": "scores", "best": 5}, r"rank 'scores' is a struct.*not a number"),
        (
            {"best": 5, "by": ("clas",)},
            "by 'clas': there is no column 'clas': did you mean class",
        ),
        ({"keep_best_of": "duplicates"}, "needs a column 'cluster': give the file of clusters"),
        ({"where": ("CAST(class AS INT) > 5",)}, "can't be computed .*Could not convert string"),
        (
            {"where": ("avg(score) > 0.5",)},
            r"where 'avg\(score\) > 0.5' is not one value for each row: of all rows take a window, such",
        ),
        ({"where": ("count(*) > 5 -- all",)}, "is not one value for each row"),
        ({"where": ("score > 0.1", "sum(count(*)) over () > 5")}, "not one value for each row"),
        ({"where": ("unnest([true, true])",)}, r"unnest.*of a list a function, such as list_max"),
        ({"best": 5, "by": ("generate_subscripts([7, 8], 1)",)}, "by .*not one value for each row"),
        ({"best": 5, "rank": "unnest([score, 1])"}, "rank .* is not one value for each row"),
        ({"best": 5, "rank": "max(score)"}, "rank .* is not one value for each row"),
        ({"keep_best_of": "unnest([1, 2])"}, "keep_best_of .* is not one value for each row"),
        ({"sample": "5", "weight": "sum(width)"}, "weight .* is not one value for each row"),
        ({"sample": "5", "stratify": "unnest([mos])"}, "stratify .* is not one value for each row"),
        ({"where": ("columns(*) is not null",)}, "is not one value for each row"),
        ({"top": "0"}, r"top \('0'\) must be a number of rows or a share"),
        ({"top": "101%"}, "above 0 and at most 100%"),
        ({"top": "10%", "best": 5}, "give one of them only"),
        ({"by": ("class",)}, "by needs a quota"),
        ({"weight": "mos"}, "weight has an effect with sample only"),
        ({"seed": 1, "best": 5}, "seed has an effect with sample and "),
        ({"sample": "5", "stratify": "score", "by": ("class",)}, "can't be combined"),
        ({"statuses": ("fine",)}, r"status \('fine'\) must be among ok, "),
    ],
)
def test_what_is_wrong_is_one_line(request_, message, select):
    with pytest.raises(InputError, match=message) as raised:
        select(**request_)
    assert "\n" not in str(raised.value)


def test_an_expression_reaches_no_file(select, tmp_path):
    file = tmp_path / "secret.parquet"
    pq.write_table(pa.table({"x": [1]}), file)
    with pytest.raises(InputError, match="file system operations are disabled"):
        select(where=(f"exists (select 1 from read_parquet('{file}'))",))  # noqa: S608
    with Engine() as engine:
        engine.lock()
        for statement in (f"COPY (SELECT 1) TO '{tmp_path}/x.csv'", "SET memory_limit = '9GB'"):
            with pytest.raises(InputError, match=r"disabled|locked"):
                engine.run(statement)


def test_an_expression_may_end_in_a_comment(frame, select):
    _, counts = select(where=("width > 2000 -- wide",))
    assert counts.kept == len(frame.query("status == 'ok' and width > 2000"))


@pytest.mark.parametrize(
    "where",
    [
        "score > avg(score) over (partition by class)",
        "row_number() over (order by mos) > 0",
        "list_max([score, 0.1]) > 0.5",
        "1 in (select unnest([1, 2]))",
        "(select count(*) from (values (1), (2))) = 2",
        "columns('^width$') > 2000",
    ],
)
def test_one_value_for_each_row_may_come_of_many(where, select):
    rows, counts = select(where=(where,))
    assert 0 < len(rows) == counts.kept


def test_names_within_structs_and_odd_ones():
    inner = pa.struct([("noise", pa.float32()), ("much light", pa.float32())])
    schema = pa.schema([("score", pa.float32()), ("scores", inner)])
    assert column_names(schema, "late.") == [
        *("late.score", "late.scores", "late.scores.noise", 'late.scores."much light"')
    ]


def test_memory_that_is_no_amount():
    with pytest.raises(InputError, match=r"memory \('much'\) must be an amount of memory"):
        Engine("much")
