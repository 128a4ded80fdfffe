"""Tests of labels/join.py: each way to join, every row accounted for, every error's text."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.evaluation.labels.join import join_labels
from iqa_core.tables.listing import find_images

ROWS = 12


@pytest.fixture
def manifest(tmp_path):
    """A manifest of 12 rows with labels; the ids are twice each."""
    path = tmp_path / "data" / "m.parquet"
    path.parent.mkdir()
    pq.write_table(
        pa.table(
            {
                "uri": [f"{i}.png" for i in range(ROWS)],
                "image_id": [f"id-{i // 2}" for i in range(ROWS)],
                "mos": [None if i == 3 else float(i) for i in range(ROWS)],
                "kind": ["blur" if i % 2 else "noise" for i in range(ROWS)],
                "level": [i % 3 for i in range(ROWS)],
                "split": ["test" if i < 6 else "train" for i in range(ROWS)],
                "reference": [None if i == 8 else f"r{i % 4}" for i in range(ROWS)],
            }
        ),
        path,
    )
    return path


def write_run(folder, *, scores, manifest=None, ids=None, rows=None, kept=None):
    """Write what `iqa score` leaves: part files, and a plan if the manifest is known."""
    folder.mkdir()
    count = len(scores)
    table = pa.table(
        {
            "manifest_file": ["m.parquet"] * count,
            "manifest_row": pa.array(rows or range(count), pa.int64()),
            "image_id": pa.array([f"id-{i}" for i in range(count)] if ids is None else ids),
            "uri": [f"{i}.png" for i in range(count)],
            "status": ["ok" if one is not None else "decode_error" for one in scores],
            "score": pa.array(scores, pa.float32()),
            **(kept or {}),
        }
    )
    order = np.random.default_rng(0).permutation(count)  # parts come in any order
    for part, rows in enumerate(np.array_split(order, 2)):
        pq.write_table(table.take(rows), folder / f"part-{part}.parquet")
    if manifest is not None:
        files = [{"name": manifest.name, "size": manifest.stat().st_size, "rows": count}]
        (folder / "_run").mkdir()
        (folder / "_run" / "plan.json").write_text(json.dumps({"files": files}))
    return str(folder)


def one_hundred(i):
    return float(np.float32(i / 100))


@pytest.fixture
def run(tmp_path, manifest):
    scores = [None if i == 5 else i / 100 for i in range(ROWS)]
    ids = [f"id-{i // 2}" for i in range(ROWS)]
    return write_run(tmp_path / "run", scores=scores, manifest=manifest, ids=ids)


def pairs(joined, name):
    return {
        (one_hundred(round(s * 100)), y)
        for s, y in zip(joined.scores[name], joined.labels, strict=True)
    }


def test_the_scored_manifest_joins_by_place_though_its_ids_repeat(run, manifest):
    joined = join_labels([run], str(manifest))
    assert joined.join == "identity"
    assert pairs(joined, run) == {
        (one_hundred(i), float(i)) for i in range(ROWS) if i not in (3, 5)
    }
    assert joined.rows == {run: 12}
    assert joined.left_out == {run: {"not scored": 1, "without a label": 1}}
    assert joined.describe() == [
        f"{run}: 10 of 12 rows used; left out: 1 not scored, 1 without a label"
    ]


def test_the_manifests_folder_is_the_manifest(run, manifest):
    assert join_labels([run], str(manifest.parent)).join == "identity"


def test_a_csv_joins_by_image_id(tmp_path, manifest):
    run = write_run(tmp_path / "run", scores=[i / 100 for i in range(9)], manifest=manifest)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "image_id,opinion\n" + "".join(f"id-{i},{i}\n" for i in range(2, 7)) + "id-99,1\nid-7,\n"
    )
    joined = join_labels([run], str(labels), label_column="opinion")
    assert joined.join == "image_id"
    assert pairs(joined, run) == {(one_hundred(i), float(i)) for i in range(2, 7)}
    assert joined.left_out[run] == {"without a label": 1, "without a row in the labels": 3}
    assert joined.unscored == 1
    assert joined.describe()[1] == "1 labelled images are in no score set"


def test_ids_of_a_csv_keep_their_zeros(tmp_path):
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3], ids=["001", "002", "010"])
    labels = tmp_path / "labels.tsv"
    labels.write_text("image_id\tmos\n001\t1\n002\t2\n010\t3\n")
    assert len(join_labels([run], str(labels)).labels) == 3


def test_whole_numbers_are_ids_too(tmp_path):
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3], ids=[7, 8, 9])
    labels = tmp_path / "labels.parquet"
    pq.write_table(
        pa.table({"image_id": pa.array([9, 8, 7], pa.int32()), "mos": [3, 2, 1]}), labels
    )
    assert pairs(join_labels([run], str(labels)), run) == {
        (one_hundred(10), 1.0),
        (one_hundred(20), 2.0),
        (one_hundred(30), 3.0),
    }


def test_labels_with_a_place_of_their_own_join_by_it(tmp_path, run):
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "manifest_file,manifest_row,mos\n" + "".join(f"m.parquet,{i},{i}\n" for i in range(12))
    )
    joined = join_labels([run], str(labels))
    assert joined.join == "identity"
    assert len(joined.labels) == 11
    labels.write_text(labels.read_text().replace(",3,3\n", ",3.0,3\nm.parquet,,9\n"))
    joined = join_labels([run], str(labels))
    assert len(joined.labels) == 11
    assert joined.notes == (f"--labels {labels}: 1 row has a label but no manifest_row",)


def test_kept_columns_are_labels(tmp_path):
    kept = {"mos": [1.0, 2.0, None, 4.0, 5.0], "kind": ["a", "a", "b", "b", "b"]}
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3, 0.4, 0.5], kept=kept)
    joined = join_labels([run], group_column="kind")
    assert pairs(joined, run) == {(one_hundred(10 * i), float(i)) for i in (1, 2, 4, 5)}
    assert sorted(joined.groups) == ["a", "a", "b", "b"]
    # those that could be meant are named, though only the one asked for is read
    fails("has no column 'opinion', but .*, mos, kind: name one", [run], label_column="opinion")


def test_several_sets_use_the_same_images(tmp_path, manifest, run):
    other = write_run(
        tmp_path / "other",
        scores=[None if i < 2 else -i / 100 for i in range(ROWS)],
        manifest=manifest,
    )
    joined = join_labels([run, other], str(manifest))
    assert joined.join == "identity"
    np.testing.assert_allclose(joined.scores[run], -joined.scores[other])
    assert len(joined.labels) == 8
    assert joined.left_out[run] == {
        "not scored": 1,
        "without a label": 1,
        "not scored in another set": 2,
    }
    assert joined.left_out[other] == {
        "not scored": 2,
        "without a label": 1,
        "not scored in another set": 1,
    }
    for name in (run, other):
        assert joined.rows[name] == len(joined.labels) + sum(joined.left_out[name].values())


def test_groups_clusters_and_a_condition(run, manifest):
    joined = join_labels(
        [run], str(manifest), group_column="level", cluster_column="reference", where="kind=noise"
    )
    assert sorted(joined.labels) == [0, 2, 4, 6, 10]
    assert dict(zip(joined.labels, joined.groups, strict=True)) == {
        0: "0",
        2: "2",
        4: "1",
        6: "0",
        10: "1",
    }
    assert set(joined.clusters) == {"r0", "r2"}
    assert joined.left_out[run] == {
        "not scored": 1,
        "outside of --where": 4,
        "without a --resample-by value": 1,
        "without a label": 1,
    }


def test_a_null_group_is_a_group(tmp_path):
    kept = {"mos": [1, 2, 3], "kind": ["a", None, None]}
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3], kept=kept)
    assert sorted(join_labels([run], group_column="kind").groups) == ["(none)", "(none)", "a"]


def test_groups_may_be_columns_that_only_the_scores_kept(tmp_path):
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3], kept={"kind": ["a", "b", "c"]})
    labels = tmp_path / "labels.csv"
    labels.write_text("image_id,mos\nid-2,3\nid-1,2\nid-0,1\n")
    joined = join_labels([run], str(labels), group_column="kind")
    assert dict(zip(joined.labels, joined.groups, strict=True)) == {1: "a", 2: "b", 3: "c"}


def test_image_columns_are_not_read(tmp_path):
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3])
    labels = tmp_path / "labels.parquet"
    ids = [f"id-{i}" for i in range(3)]
    pq.write_table(pa.table({"image": [b"x"] * 3, "image_id": ids, "mos": [1, 2, 3]}), labels)
    assert len(join_labels([run], str(labels)).labels) == 3


# What spreadsheets and people write ---------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """A run over a folder of four photographs; the ids are paths relative to it."""
    ids = ["set1/p1.jpg", "set1/p2.jpg", "set2/p3.jpg", "set2/p4.jpg"]
    return write_run(tmp_path / "photos", scores=[0.1, 0.2, 0.3, 0.4], ids=ids)


def write_labels(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_an_export_of_a_spreadsheet(tmp_path, photos):
    """Semicolons, decimal commas, blanks in names of columns, dashes, an empty row, a byte order mark."""
    text = "Image Name; MOS ;Test\r\np1;3,5;WAHR\r\n;;\r\np2;1.250,5;\r\np3;\u2013;\r\np4;2;\r\n"
    labels = write_labels(tmp_path / "l.csv", text, "utf-8-sig")
    joined = join_labels([photos], labels)
    assert pairs(joined, photos) == {
        (one_hundred(10), 3.5),
        (one_hundred(20), 1250.5),
        (one_hundred(40), 2.0),
    }
    assert joined.left_out == {photos: {"without a label": 1}}
    assert joined.describe()[1:] == list(joined.notes)
    assert [
        note.replace(f"--labels {labels}", "L").replace(f"--scores {photos}", "S")
        for note in joined.notes
    ] == [
        "L: columns separated by semicolons",
        "L: 1 empty row left out",
        "L: column 'MOS' is taken for 'mos'",
        "column 'MOS' of L: 2 numbers read with decimal commas, such as '3,5' as 3.5, '1.250,5' as 1250.5",
        "column 'MOS' of L: 1 number read with thousands separators, such as '1.250,5' as 1250.5",
        "column 'MOS' of L: 1 cell read as missing: '\u2013' (1)",
        "S: image_id is matched with 'Image Name' of L",
        "S: 4 rows joined ignoring folders and suffix, such as 'set1/p1.jpg' with 'p1'",
    ]


def test_labels_of_a_workbook(tmp_path, photos):
    book = openpyxl.Workbook()
    for row in (
        ["filename", "mos"],
        ["p1.jpg", 1],
        ["p2.jpg", 2.5],
        ["p3.jpg", "N/A"],
        ["p4.jpg", 4],
    ):
        book.active.append(row)
    book.save(tmp_path / "l.xlsx")
    joined = join_labels([photos], str(tmp_path / "l.xlsx"))
    assert sorted(joined.labels) == [1, 2.5, 4]
    assert any("joined ignoring folders, such as" in note for note in joined.notes)


def test_a_semicolon_file_whose_numbers_all_have_three_decimals(tmp_path, photos):
    rows = "".join(f"set{1 + i // 3}/p{i}.jpg;{i},125\n" for i in (1, 2, 3, 4))
    joined = join_labels([photos], write_labels(tmp_path / "l.csv", "path;mos\n" + rows))
    assert sorted(joined.labels) == [1.125, 2.125, 3.125, 4.125]
    text = "path,mos\n" + rows.replace(",", ".").replace(";", ',"').replace(".125", ',125"')
    fails(
        "has 4 numbers that can be read in two ways",
        [photos],
        write_labels(tmp_path / "l.csv", text),
    )


def test_ids_are_matched_step_by_step_for_each_score_set(tmp_path, photos):
    other = write_run(tmp_path / "other", scores=[0.4, 0.3, 0.2, 0.1], ids=["P1", "P2", "P3", "P4"])
    labels = write_labels(
        tmp_path / "l.csv", "file,mos\n" + "".join(f"p{i},{i}\n" for i in (4, 3, 2, 1))
    )
    joined = join_labels([photos, other], labels)
    assert joined.labels.tolist() == [4, 3, 2, 1]
    np.testing.assert_allclose(joined.scores[photos], [0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(joined.scores[other], [0.1, 0.2, 0.3, 0.4])
    told = " | ".join(joined.notes)
    assert (
        "photos: 4 rows joined ignoring folders and suffix, such as 'set1/p1.jpg' with 'p1'" in told
    )
    assert "other: 4 rows joined ignoring case, such as 'P1' with 'p1'" in told


def test_forms_of_unicode_are_told_apart_in_the_note(tmp_path):
    ids = ["cafe\u0301.png", "b.png", "c.png"]
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3], ids=ids)
    labels = write_labels(tmp_path / "l.csv", "image_id,mos\ncaf\u00e9.png,1\nb.png,2\nc.png,3\n")
    joined = join_labels([run], labels)
    assert len(joined.labels) == 3
    assert "1 row joined ignoring" in joined.notes[0]
    assert r"'cafe\u0301.png' with 'caf\xe9.png'" in joined.notes[0]


def test_numbers_that_lost_their_zeros(tmp_path):
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3], ids=["00012", "00013", "00100"])
    labels = tmp_path / "l.parquet"
    pq.write_table(pa.table({"image_id": [12, 13, 100], "mos": [1, 2, 3]}), labels)
    joined = join_labels([run], str(labels))
    assert pairs(joined, run) == {(one_hundred(10), 1), (one_hundred(20), 2), (one_hundred(30), 3)}
    assert "3 rows joined ignoring leading zeros, such as '00012' with '12'" in joined.notes[0]


@pytest.mark.parametrize(
    "ids",
    [
        ["00012", "00013", "00014"],
        ["12e4", "13e5", "14e6"],
        ["12345678901234567890123", "22345678901234567890123", "3"],  # beyond 64 bits
    ],
    ids=["leading zeros", "like exponents", "long"],
)
def test_the_list_that_the_manifest_was_made_of(ids, tmp_path):
    lines = [f"{i}.jpg,{one},{i}" for i, one in enumerate(ids)]
    labels = write_labels(tmp_path / "l.csv", "\n".join(["path,image_id,mos", *lines, ""]))
    stored = find_images([labels])[0]["image_id"].combine_chunks()
    assert stored.to_pylist() == ids
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3], ids=stored)
    joined = join_labels([run], labels)
    assert pairs(joined, run) == {(one_hundred(10), 0), (one_hundred(20), 1), (one_hundred(30), 2)}
    assert not any("ignoring" in note for note in joined.notes)


def test_the_uri_joins_where_there_is_no_id_or_it_is_another(tmp_path):
    labels = write_labels(tmp_path / "l.csv", "image,mos\n0.png,1\n1.png,2\n2.png,3\n")
    for name, ids in {"numbered": ["n7", "n8", "n9"], "nameless": pa.nulls(3, pa.string())}.items():
        run = write_run(tmp_path / name, scores=[0.1, 0.2, 0.3], ids=ids)
        joined = join_labels([run], labels)
        assert (joined.join, joined.labels.tolist()) == ("uri", [1, 2, 3])
        assert f"{name}: uri is matched with 'image' of" in joined.notes[0]


def test_ids_that_repeat_do_not_join_by_the_uri_behind_the_users_back(tmp_path, run):
    labels = write_labels(tmp_path / "l.csv", "image_id,mos\n0.png,1\n1.png,2\n2.png,3\n")
    fails("has image_id 'id-.' more than once", [run], labels)


def test_a_join_that_finds_little_shows_examples_and_why(tmp_path, photos):
    text = "filename,mos\n" + "".join(f"p{i}.png,{i}\n" for i in (1, 2, 3, 4))
    labels = write_labels(tmp_path / "l.csv", text)
    fails(
        r"0 images have a label .* only 0 of 4 scores match one of 4 labels: image_id is 'set1/p1.jpg', "
        r"'set1/p2.jpg' and 'filename' of the labels 'p1.png', 'p2.png'; their suffixes differ: if",
        [photos],
        labels,
    )
    text = "image_id,mos\n" + "".join(f"id-{i},{i}\n" for i in (1, 2, 3, *range(100, 120)))
    run = write_run(tmp_path / "run", scores=[i / 100 for i in range(12)])
    joined = join_labels([run], write_labels(tmp_path / "l.csv", text))  # 3 of 12: enough, but told
    assert len(joined.labels) == 3
    assert (
        "only 3 of 12 scores match one of 23 labels: image_id is 'id-0', 'id-10'"
        in joined.notes[-1]
    )
    assert "'image_id' of the labels 'id-100', 'id-101'; they have no file name" in joined.notes[-1]


def test_an_ambiguous_join_is_not_made(tmp_path):
    ids = ["a/p1.png", "b/p1.png", "b/p2.png"]
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3], ids=ids)
    labels = write_labels(tmp_path / "l.csv", "image,mos\np1.png,1\np2.png,2\np3.png,3\n")
    fails(
        "ignoring folders would be ambiguous: 'a/p1.png' and 'b/p1.png' of the scores fit 'p1.png'",
        [run],
        labels,
    )


def test_rows_of_labels_without_an_id_are_counted(tmp_path):
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3])
    labels = write_labels(tmp_path / "l.csv", "image_id,mos\nid-0,1\nid-1,2\nid-2,3\n,2\n")
    joined = join_labels([run], labels)
    assert len(joined.labels) == 3
    assert joined.unscored == 0
    assert joined.notes == (f"--labels {labels}: 1 row has a label but no image_id",)


def test_conditions_on_truth_values_and_numbers(tmp_path):
    run = write_run(tmp_path / "run", scores=[0.1, 0.2, 0.3, 0.4])
    rows = ["id-0,1,TRUE,3", "id-1,2,FALSE,3.0", "id-2,3,TRUE,3", "id-3,4,TRUE,4"]
    labels = write_labels(tmp_path / "l.csv", "\n".join(["image_id,mos,Test,level", *rows]))
    for where in ("Test=true", "test=1", "TEST=yes", "Test=TRUE"):
        assert join_labels([run], labels, where=where).labels.tolist() == [1, 3, 4]
    joined = join_labels([run], labels, where="level=3.0", group_column="level")
    assert (joined.labels.tolist(), set(joined.groups)) == ([1, 2, 3], {"3"})
    fails(r"where level=9 holds for no row: level is '3' \(2\), ", [run], labels, where="level=9")


# Errors ---------------------------------------------------------------------------------------------


def fails(text, *arguments, **options):
    with pytest.raises(InputError, match=text) as raised:
        join_labels(*arguments, **options)
    assert "\n" not in str(raised.value)


def test_errors_of_the_scores(tmp_path, manifest):
    fails(r"scores gone holds no part-\*\.parquet: give the output of `iqa score`", ["gone"])
    folder = tmp_path / "features"
    folder.mkdir()
    pq.write_table(pa.table({"a": [1]}), folder / "part-0.parquet")
    fails("has no column 'manifest_file': give the output of", [str(folder)])
    (folder / "part-0.parquet").write_bytes(b"no Parquet")
    fails(
        r"part-0\.parquet of scores .* can't be read .*: restore it, or score again",
        [str(folder)],
    )
    run = write_run(tmp_path / "run", scores=[0.1, 0.2], rows=[4, 4], manifest=manifest)
    fails(
        "has manifest_file 'm.parquet row 4' more than once: `iqa verify` shows more",
        [run],
        str(manifest),
    )
    fails("is given twice: name each output once", [run, run], str(manifest))


def test_errors_of_the_labels(tmp_path, run, manifest):
    fails(
        "is neither a Parquet or CSV file nor a folder of Parquet files",
        [run],
        str(tmp_path / "no"),
    )
    fails("gone.csv does not exist: check the path", [run], str(tmp_path / "gone.csv"))
    (tmp_path / "bad.parquet").write_bytes(b"no Parquet")
    fails("bad.parquet can't be read: ", [run], str(tmp_path / "bad.parquet"))
    fails(
        "has no column 'dmos', but uri, image_id, mos, kind, level, split, reference: name it: label_",
        [run],
        str(manifest),
        label_column="dmos",
    )
    fails(
        "has no column 'mos', but .*: name one by label_column, give labels, or score with keep",
        [run],
    )
    fails(
        "column 'kind' of .* is string, but labels must be numbers",
        [run],
        str(manifest),
        label_column="kind",
    )


def test_errors_of_columns(tmp_path, run, manifest):
    fails(
        "by 'nothing' is no column: labels .* has uri, .* and .*run has",
        [run],
        str(manifest),
        group_column="nothing",
    )
    fails(
        r"where \('split'\) must be COLUMN=VALUE: give one, such as split=test",
        [run],
        str(manifest),
        where="split",
    )
    fails("where 'no' is no column", [run], str(manifest), where="no=1")
    fails(
        "0 images have a label and a score, but at least 3 are needed: .*run: 0 of 12",
        [run],
        str(manifest),
        where="split=valid",
    )
    fails(
        "resample_by 'split' has one value",
        [run],
        str(manifest),
        cluster_column="split",
        where="split=test",
    )
    kept = {"mos": list(range(201)), "boxes": [[1]] * 201, "name": [str(i) for i in range(201)]}
    other = write_run(tmp_path / "many", scores=[0.5] * 201, kept=kept)
    fails(
        "by 'name' has 201 values, more than 200: name a column of kinds",
        [other],
        group_column="name",
    )
    fails(
        "by 'boxes' of .* is list.*: name a column of text or numbers",
        [other],
        group_column="boxes",
    )


def test_errors_of_joining(tmp_path, run, manifest):
    labels = tmp_path / "labels.csv"
    labels.write_text("image_id,mos\nid-1,1\nid-2,2\nid-1,3\n")
    unique = write_run(tmp_path / "unique", scores=[0.1, 0.2, 0.3])
    fails("labels.csv has image_id 'id-1' more than once: give the manifest", [unique], str(labels))
    labels.write_text("image_id,mos\nid-1,1\nid-2,2\nid-3,3\n")
    fails(
        "run has image_id 'id-.' more than once: give the manifest that was scored",
        [run],
        str(labels),
    )
    fails(
        "join identity needs labels as Parquet, or with the columns manifest_file",
        [run],
        str(labels),
        join="identity",
    )
    labels.write_text("stimulus,mos\na,1\nb,2\nc,3\n")
    fails(
        "labels.csv has no image_id and these are not rows of one manifest: add one",
        [run],
        str(labels),
    )
    fails(
        "labels.csv has no image_id: add one, or give the manifest",
        [run],
        str(labels),
        join="image_id",
    )


def test_another_manifest_is_not_taken_for_the_scored_one(tmp_path, run, manifest):
    """Its rows may be others: the place alone would join them all wrong."""
    table = pq.read_table(manifest)
    other = Path(tmp_path / "other")
    other.mkdir()
    pq.write_table(table.slice(0, 11), other / "m.parquet")
    fails("has image_id 'id-.' more than once", [run], str(other / "m.parquet"))
    joined = join_labels([run], str(other / "m.parquet"), join="identity")  # on the user's word
    assert joined.left_out[run]["without a row in the labels"] == 1


# Selections: manifests that keep their rows' places in another manifest ----------------------------


def select_rows(path, *, rows, source="m.parquet", ids=True, **columns):
    """Write what `iqa select` makes of rows of a manifest; return it as a manifest."""
    path.parent.mkdir(exist_ok=True)
    table = {
        "manifest_file": [source] * len(rows),
        "manifest_row": pa.array(rows, pa.int64()),
        "uri": [f"/data/{row}.png" for row in rows],
        **({"image_id": [f"id-{row}" for row in rows]} if ids else {}),
        "mos": [float(row) for row in rows],
        **columns,
    }
    pq.write_table(pa.table(table), path)
    return path


def run_over_selection(folder, manifest, rows, **options):
    """Write a run over a selection: its places are those of the rows in the selection."""
    run = write_run(
        folder,
        scores=[row / 100 for row in rows],
        ids=options.pop("ids", [f"id-{row}" for row in rows]),
        manifest=manifest,
    )
    for part in Path(run).glob("part-*.parquet"):
        table = pq.read_table(part)
        places = table["manifest_row"].to_pylist()
        columns = {
            "manifest_file": pa.array([manifest.name] * len(table)),
            "uri": pa.array([f"{rows[place]}.png" for place in places]),
        }
        for name, column in columns.items():
            table = table.set_column(table.column_names.index(name), name, column)
        pq.write_table(table, part)
    return run


SELECTED = [7, 4, 1, 9, 2]


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
@pytest.mark.parametrize("name", ["m.parquet", "selected.parquet"])
def test_a_scored_selection_joins_by_its_own_places(tmp_path, name, ids):
    """Not by those of the manifest that it was selected from, though that may have the same name."""
    selection = select_rows(tmp_path / "again" / name, rows=SELECTED, ids=ids)
    run = run_over_selection(
        tmp_path / "run",
        selection,
        SELECTED,
        **({} if ids else {"ids": pa.nulls(len(SELECTED), pa.string())}),
    )
    joined = join_labels([run], str(selection))
    assert joined.join == "identity"
    assert pairs(joined, run) == {(one_hundred(row), float(row)) for row in SELECTED}


@pytest.mark.parametrize("name", ["m.parquet", "selected.parquet"])
@pytest.mark.parametrize("join", ["auto", "identity"])
def test_a_selection_that_changed_since_does_not_join_by_its_old_places(tmp_path, name, join):
    selection = select_rows(tmp_path / "again" / name, rows=SELECTED)
    run = run_over_selection(tmp_path / "run", selection, SELECTED)
    select_rows(selection, rows=SELECTED, more=["a note"] * len(SELECTED))
    joined = join_labels([run], str(selection), join=join)
    assert joined.join == ("image_id" if join == "auto" else "identity")
    assert pairs(joined, run) == {(one_hundred(row), float(row)) for row in SELECTED}


def test_other_ids_at_the_same_places_of_labels_without_an_id(tmp_path):
    """File names tell the rows apart, and join."""
    rows = [3, 4, 2, 1, 0]  # places that the run has, too
    selection = select_rows(tmp_path / "again" / "m.parquet", rows=rows, ids=False)
    run = run_over_selection(tmp_path / "run", selection, rows)
    select_rows(selection, rows=rows, ids=False, more=["a note"] * len(rows))
    joined = join_labels([run], str(selection))
    assert joined.join == "uri"
    assert pairs(joined, run) == {(one_hundred(row), float(row)) for row in rows}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_labelled_selection_joins_with_the_scores_that_it_was_selected_from(
    tmp_path, manifest, run, suffix
):
    """By its stored places; the ids of the run repeat, so that they could not."""
    rows = [7, 4, 1, 9]
    ids = [f"id-{row // 2}" for row in rows]
    path = select_rows(tmp_path / "s.parquet", rows=rows, ids=False, image_id=ids)
    labels = tmp_path / f"s.{suffix}"
    if suffix == "csv":
        pq.read_table(path).to_pandas().to_csv(labels, index=False)
    joined = join_labels([run], str(labels))
    assert joined.join == "identity"
    assert pairs(joined, run) == {(one_hundred(row), float(row)) for row in rows}


def test_one_of_the_files_of_the_manifest_joins_by_place(tmp_path, manifest, run):
    plan = Path(run) / "_run" / "plan.json"
    files = json.loads(plan.read_text())["files"]
    plan.write_text(json.dumps({"files": [*files, {"name": "n.parquet", "size": 1, "rows": 1}]}))
    assert join_labels([run], str(manifest)).join == "identity"


def test_stored_places_of_another_manifest(tmp_path, manifest, run):
    """They join on the user's word only, and what finds nothing names the way out."""
    labels = tmp_path / "labels.csv"
    text = "manifest_file,manifest_row,mos\n"
    labels.write_text(text + "".join(f"old.parquet,{i},{i}\n" for i in range(ROWS)))
    fails(
        "has no image_id and these are not rows of one manifest: add one, or give the manifest that was "
        "scored as labels, or join identity to match manifest_file and manifest_row; it may",
        [run],
        str(labels),
    )
    fails(
        "0 images have a label .* no row has a place of the labels in the manifest: give "
        "join image_id to match",
        [run],
        str(labels),
        join="identity",
    )
    labels.write_text(text + "".join(f"m.parquet,{100 + i},{i}\n" for i in range(ROWS)))
    fails("no row has a place of the labels in the manifest", [run], str(labels))


def test_many_rows(tmp_path):
    count = 200_000
    ids = [f"image-{i}" for i in range(count)]
    run = write_run(tmp_path / "run", scores=[0.5] * count, ids=ids)
    labels = tmp_path / "labels.parquet"
    pd.DataFrame({"image_id": ids[::-1], "mos": np.arange(count)}).to_parquet(labels)
    assert len(join_labels([run], str(labels)).labels) == count


@pytest.mark.parametrize("name", ["m.parquet", "labels.csv"])
def test_remote_scores_and_labels(tmp_path, run, manifest, name):
    labels = manifest
    if name == "labels.csv":
        labels = tmp_path / name
        places = "".join(f"m.parquet,{i},{i}\n" for i in range(ROWS))
        labels.write_text("manifest_file,manifest_row,mos\n" + places)
    memory = fsspec.filesystem("memory")
    memory.put(run, "/join/run", recursive=True)
    memory.put(str(labels), f"/join/{name}")
    try:
        joined = join_labels(["memory://join/run"], f"memory://join/{name}")
        assert joined.join == "identity"
        assert len(joined.labels) == len(join_labels([run], str(labels)).labels)
    finally:
        memory.rm("/join", recursive=True)
