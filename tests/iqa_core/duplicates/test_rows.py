"""Tests of iqa_core/duplicates/rows.py: rows in the order of their identity, whatever the part files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.duplicates.content_hash import content_hash
from iqa_core.duplicates.rows import read_image_rows
from iqa_core.errors import InputError
from tests.iqa_core.duplicates.outputs import WIDTH, write_output

CONTENTS = [bytes([place % 7]) for place in range(20)]
FEATURES = np.eye(20, WIDTH) + 0.1


def test_rows_come_in_the_order_of_their_identity(tmp_path):
    scores = write_output(tmp_path, CONTENTS, FEATURES, failed=(4, 11))
    rows = read_image_rows(scores, scores)
    left = [place for place in range(20) if place not in (4, 11)]
    assert len(rows) == 18
    hexadecimal = ["".join(f"{value:016x}" for value in row) for row in rows.hashes.tolist()]
    assert hexadecimal == [content_hash(CONTENTS[place]) for place in left]
    np.testing.assert_array_equal(rows.features, FEATURES[left].astype(np.float16))
    some = np.array([0, 3, 17])
    found = rows.identities(some).to_pylist()
    assert [row["image_id"] for row in found] == [f"id-{left[place]}.jpg" for place in some]
    assert [row["uri"] for row in found] == [f"{left[place]}.jpg" for place in some]
    assert found[-1]["manifest_file"] == "1.parquet"
    assert len(rows.identities(some[:0])) == 0


def test_features_of_another_output_are_joined_by_identity(tmp_path):
    scores = write_output(tmp_path, CONTENTS, failed=(3,))
    features = write_output(tmp_path, CONTENTS, FEATURES, name="f", hashes=False, failed=(5,))
    rows = read_image_rows(scores, features)
    left = [place for place in range(20) if place != 3]
    assert np.isnan(rows.features[left.index(5)]).all()
    there = [place for place in left if place != 5]
    places = [left.index(place) for place in there]
    np.testing.assert_array_equal(rows.features[places], FEATURES[there].astype(np.float16))


def test_an_output_with_neither_hashes_nor_features_is_refused(tmp_path):
    scores = write_output(tmp_path, CONTENTS, hashes=False)
    with pytest.raises(InputError, match="has neither a column content_hash nor descriptor"):
        read_image_rows(scores)
    with pytest.raises(InputError, match=r"holds no part-\*\.parquet"):
        read_image_rows(str(tmp_path / "nothing"))


def test_descriptors_are_read_where_near_copies_are_wanted(tmp_path):
    descriptors = np.random.default_rng(0).integers(-127, 128, (20, 168), np.int8)
    descriptors[5] = 0
    scores = write_output(tmp_path, CONTENTS, descriptors=descriptors, failed=(3,))
    left = [place for place in range(20) if place != 3]
    np.testing.assert_array_equal(read_image_rows(scores).features, descriptors[left])
    assert read_image_rows(scores, near=False).features is None


def test_features_of_another_manifest_are_refused(tmp_path):
    scores = write_output(tmp_path, CONTENTS)
    (tmp_path / "other").mkdir()
    fewer = write_output(tmp_path / "other", CONTENTS[:10], FEATURES[:10])
    with pytest.raises(InputError, match="are of different manifests: their file"):
        read_image_rows(scores, fewer)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("content_hash", ["a" * 32, "ab"], "has values other than 32 hexadecimal digits"),
        ("content_hash", ["a" * 32, None], "has values other than 32 hexadecimal digits"),
        ("content_hash", ["z" * 32, "a" * 32], "has values other than 32 hexadecimal digits"),
        ("content_hash", [1, 2], "is of type int64"),
        ("descriptor", ["a cat", "a dog"], "is of type string"),
        (
            "descriptor",
            pa.array([[0.5], [1]], pa.list_(pa.float32(), 1)),
            "is of type fixed_size_list",
        ),
    ],
)
def test_columns_that_only_have_the_name_are_refused(column, values, found, tmp_path):
    """As older versions wrote them with --keep, or other programs."""
    scores = write_output(tmp_path, CONTENTS[:2], hashes=False, files=1)
    for part in (tmp_path / "o").glob("part-*.parquet"):
        table = pq.read_table(part)
        chosen = pa.array(values).take(table["manifest_row"].combine_chunks())
        pq.write_table(table.append_column(column, chosen), part)
    option = {"content_hash": "--hash", "descriptor": "--descriptors"}[column]
    with pytest.raises(InputError) as no:
        read_image_rows(scores)
    line = no.value.on_command_line()
    assert line.startswith(
        f"--scores {scores} has a column {column} that is not of {option} (it {found}"
    )
    assert line.endswith(f": score with {option}, and rename the manifest's column {column}")
