"""Which outputs are taken, how several are joined, and clusters."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.selecting.clusters import open_clusters
from iqa_core.selecting.engine import Engine
from iqa_core.selecting.request import Request
from iqa_core.selecting.selection import Selection
from iqa_core.selecting.sources import open_scores
from tests.iqa_core.selecting.outputs import as_table, made_up, write_output

ID = ["manifest_file", "manifest_row"]


@pytest.fixture(scope="module")
def rows():
    return made_up(600, seed=1)


@pytest.fixture
def scores(rows, tmp_path):
    return write_output(tmp_path / "scores", rows)


def test_facts(rows, scores, tmp_path):
    [source] = open_scores([scores])
    assert source.rows == len(rows)
    assert source.statuses == rows.status.value_counts().to_dict()
    assert source.facts() == {
        "name": "",
        "scores": scores,
        "manifest": str(tmp_path / "list"),
        "fingerprint": "f" * 16,
        "rows": 600,
    }


def test_an_unfinished_output_is_refused_unless_asked_for(rows, tmp_path):
    half = write_output(tmp_path / "half", rows.head(300), plan_of=rows)
    with pytest.raises(InputError, match=r"lacks 300 rows of its manifest.*allow_unfinished"):
        open_scores([half])
    [source] = open_scores([half], allow_unfinished=True)
    assert (source.rows, source.missing) == (300, 300)


def test_rows_twice_and_two_fingerprints_are_refused(rows, tmp_path):
    twice = write_output(tmp_path / "twice", pd.concat([rows, rows.head(3)]), plan_of=rows)
    with pytest.raises(InputError, match="3 rows twice"):
        open_scores([twice])
    mixed = tmp_path / "mixed"
    write_output(mixed, rows.head(300), plan_of=rows)
    other = write_output(tmp_path / "other", rows.tail(300), plan_of=rows, fingerprint="0" * 16)
    (tmp_path / "other/part-0.parquet").rename(mixed / "part-9.parquet")
    assert other
    with pytest.raises(InputError, match="2 fingerprints"):
        open_scores([str(mixed)], allow_unfinished=True)


def test_what_is_no_output_with_scores(rows, scores, tmp_path):
    with pytest.raises(InputError, match=r"holds no part-\*\.parquet"):
        open_scores([str(tmp_path / "absent")])
    features = tmp_path / "features"
    (features / "_run").mkdir(parents=True)
    pq.write_table(as_table(rows).drop_columns(["score"]), features / "part-0.parquet")
    with pytest.raises(InputError, match="has no column 'score': give the output of"):
        open_scores([str(features)])


def test_features_and_types_without_sql_are_left_out(rows, tmp_path):
    folder = tmp_path / "scores"
    write_output(folder, rows, parts=1)
    part = folder / "part-0.parquet"
    table = pq.read_table(part)
    half = pa.array([0.5] * 600, pa.float32()).cast(pa.float16())
    wide = pa.FixedSizeListArray.from_arrays(
        pa.array([0.5] * 1200, pa.float32()).cast(pa.float16()), 2
    )
    table = table.append_column("small", half).append_column("embedding", wide)
    pq.write_table(table, part)
    [source] = open_scores([str(folder)])
    assert source.left_out == ("small",)
    assert "embedding" not in source.schema.names


class TestTwoOutputs:
    @pytest.fixture
    def late(self, frame, output, tmp_path):
        """Another run on the first 15,000 rows of the same manifest, with other scores."""
        rows = frame.head(15_000).assign(score=lambda f: 1 - f.score)
        return write_output(tmp_path / "late", rows.sample(frac=1, random_state=2), plan_of=frame)

    def test_columns_of_the_second_have_its_name(self, frame, late, tmp_path, select):
        finished = tmp_path / "late/_run/plan.json"
        plan = json.loads(finished.read_text())
        finished.write_text(json.dumps(plan | {"rows": 15_000}))
        rows, counts = select(late, where=("late.score > score and late.scores.noise > 0.5",))
        expected = frame.head(15_000).query("status == 'ok' and 1 - score > score and noise > 0.5")
        expected = expected.sort_values(ID)
        assert [row["manifest_row"] for row in rows] == expected.manifest_row.tolist()
        assert rows[0]["late"].keys() == {"status", "score", "scores"}
        assert rows[0]["late"]["score"] == pytest.approx(1 - rows[0]["score"])
        assert counts.rows == len(frame)

    def test_rows_of_the_first_alone_have_no_values(self, frame, late, output, select):
        first, second = open_scores([output, f"b={late}"], allow_unfinished=True)
        assert (second.name, first.shared_rows(second)) == ("b", 15_000)
        assert second.missing == 5_000

    def test_a_name_that_is_taken(self, scores, rows, tmp_path):
        other = write_output(tmp_path / "x/scores", rows)
        with pytest.raises(InputError, match=r"known as scores, which is a column .* second="):
            open_scores([scores, other])
        with pytest.raises(InputError, match="known as image, which is a column"):
            open_scores([scores, f"image={other}"])

    def test_another_manifest(self, scores, rows, tmp_path):
        other = write_output(tmp_path / "other", rows.head(100))
        with pytest.raises(
            InputError, match=r"different manifests \(their manifest files a\.parquet"
        ):
            open_scores([scores, other])


class TestClusters:
    def write(self, path, frame):
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
        return open_clusters(str(path), ["score", "uri"])

    def test_the_best_of_each_is_kept(self, frame, tmp_path, select):
        known = frame.dropna(subset="copies")[[*ID, "copies", "uri"]]
        clusters = self.write(tmp_path / "c.parquet", known.rename(columns={"copies": "cluster"}))
        assert clusters.columns == ["cluster"]
        rows, _ = select(clusters=clusters, keep_best_of="duplicates")
        same, _ = select(keep_best_of="copies")
        assert [row["uri"] for row in rows] == [row["uri"] for row in same]
        assert {row["cluster"] for row in rows} == {row["copies"] for row in same}

    def test_what_is_refused(self, frame, tmp_path, select):
        known = frame.head(10)[ID].assign(cluster=1)
        twice = self.write(tmp_path / "twice.parquet", pd.concat([known, known.head(1)]))
        with pytest.raises(InputError, match="1 rows twice"):
            select(clusters=twice)
        other = self.write(tmp_path / "other.parquet", known.assign(manifest_file="z"))
        with pytest.raises(InputError, match="no row of"):
            select(clusters=other)
        with pytest.raises(InputError, match="has no column 'cluster'"):
            self.write(tmp_path / "none.parquet", known[ID])
        with pytest.raises(InputError, match="can't be read"):
            open_clusters(str(tmp_path / "absent.parquet"), [])

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("late", "has a column late, and an output of scores is known as Late: give"),
            ("LATE", "has a column LATE, and an output of scores is known as Late: give"),
            ("CLUSTER", r"two columns of one name, cluster and CLUSTER \(case does not count\)"),
            ("_iqa_rank", "has a column _iqa_rank, but names of _iqa_ are the command's own"),
        ],
    )
    def test_a_selection_has_no_two_columns_of_one_name(self, name, message, frame, tmp_path):
        path = str(tmp_path / "c.parquet")
        known = frame.head(10)[ID].assign(cluster=1, **{name: 2})
        pq.write_table(pa.Table.from_pandas(known, preserve_index=False), path)
        with pytest.raises(InputError, match=message):
            open_clusters(path, ["score"], ["Late"])

    def test_images_within_the_manifest_are_the_only_column_of_that_name(self, frame, tmp_path):
        clusters = self.write(
            tmp_path / "c.parquet", frame.head(10)[ID].assign(cluster=1, Image="x")
        )
        assert clusters.columns == ["cluster"]


def test_of_two_columns_that_differ_in_case_the_first_counts(rows, tmp_path, select):
    folder = write_output(tmp_path / "scores", rows.assign(WIDTH=7))
    [source] = open_scores([folder])
    assert source.left_out == ("WIDTH",)
    assert "width" in source.schema.names


@pytest.mark.parametrize("name", ["_iqa_candidates", "candidates", "passing", "graded", "a", "x"])
def test_an_output_may_be_called_as_a_step_of_ours(name, frame, tmp_path, select):
    worse = write_output(tmp_path / "w", frame.assign(score=lambda f: 1 - f.score))
    expected, _ = select(bottom="5")
    request = {"top": "5", "rank": f"{name}.score"}
    if name == "_iqa_candidates":
        with pytest.raises(InputError, match="would be known as _iqa_candidates, which"):
            select(f"{name}={worse}", **request)
        return
    rows, _ = select(f"{name}={worse}", **request)
    assert [row["score"] for row in rows] == [row["score"] for row in expected]
    labelled, _ = select(f"{name}={worse}", for_labelling=5, rank=f"{name}.score")
    assert len(labelled) == 5


def test_a_folder_whose_name_has_an_equals_sign(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_output(tmp_path / "run=3", rows)
    write_output(tmp_path / "run=4", rows)
    first, second = open_scores(["run=3", "run=4"])
    assert (first.uri, second.uri) == ("run=3", "run=4")


def test_nan_in_a_kept_column_is_above_all_numbers(rows, tmp_path):
    """In the counts as in the rows: Parquet's statistics know nothing of NaN."""
    folder = tmp_path / "scores"
    write_output(folder, rows, parts=1)
    part = folder / "part-0.parquet"
    table = pq.read_table(part)
    values = pa.array([float("nan"), *range(599)], pa.float64())
    place = table.schema.get_field_index("mos")
    metadata = table.schema.metadata
    table = table.set_column(place, "mos", values).replace_schema_metadata(metadata)
    pq.write_table(table, part, row_group_size=1 if len(table) < 10 else 50)
    with Engine("500MB") as engine:
        request = Request(where=("mos > 1e6",), statuses=("any",))
        selection = Selection(engine, open_scores([str(folder)]), request)
        found = [row for b in selection.rows() for row in b.to_pylist()]
    assert selection.counts.kept == len(found) == 1
