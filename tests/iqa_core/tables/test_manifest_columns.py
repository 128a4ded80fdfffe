"""Tests of iqa_core/tables/manifest_columns.py: the types that writers of Parquet make."""

from __future__ import annotations

import datetime
import decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_columns import column_type, unified_type
from iqa_core.tables.manifest_reading import read_slice
from iqa_core.tables.rows import RowSet
from iqa_core.tables.schema import output_schema
from iqa_core.tables.slices import plan_slices

TEXTS = ["a b.jpg", "straße/é.png", None, ""]
TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
    pa.dictionary(pa.int16(), pa.binary()),
]
BYTES = [b"\xff\xd8\x00", b"", None]
BYTES_TYPES = [
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.binary()),
]


def array(values, kind):
    """Return an array of any type, given text."""
    if pa.types.is_dictionary(kind):
        values = array(values, kind.value_type)
        return values.dictionary_encode().cast(kind)
    is_text = str(kind).endswith(("string", "string_view"))
    encoded = [v if v is None or isinstance(v, bytes) or is_text else v.encode() for v in values]
    return pa.array(encoded, kind)


def write(folder, *tables):
    folder.mkdir(exist_ok=True)
    for name, table in zip("abcdefgh", tables, strict=False):
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return str(folder)


def read(uri, keep=()):
    manifest = open_manifest(uri, keep)
    tables = [
        table
        for unit in plan_slices(manifest, RowSet())
        for table in read_slice(
            manifest.folder, unit, keep, manifest.image_id_type, 3, schema=manifest.schema
        )
    ]
    table = pa.concat_tables(tables)
    schema = output_schema(manifest, keep)
    for name in ("image_id", *keep):
        assert table.schema.field(name).type == schema.field(name).type
    return table


class TestText:
    @pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
    def test_a_uri_in_every_type_of_text(self, kind, tmp_path):
        uri = write(tmp_path / "m", {"uri": array(TEXTS, kind)})
        assert read(uri).column("uri").to_pylist() == TEXTS

    def test_padded_text_of_a_fixed_size(self, tmp_path):
        values = pa.array([b"a.jpg\0\0", b"bcd.jpg", None], pa.binary(7))
        uri = write(tmp_path / "m", {"uri": values})
        assert read(uri).column("uri").to_pylist() == ["a.jpg", "bcd.jpg", None]

    @pytest.mark.parametrize("kind", [pa.binary(), pa.binary_view(), pa.large_binary()], ids=str)
    def test_an_image_id_of_unmarked_text(self, kind, tmp_path):
        ids = array([b"x1", "ü".encode(), b"\xfe\x01", None], kind)
        uri = write(tmp_path / "m", {"uri": ["1", "2", "3", "4"], "image_id": ids})
        assert read(uri).column("image_id").to_pylist() == ["x1", "ü", "\\xfe\x01", None]

    @pytest.mark.parametrize("keep", [[], ["kind"]])
    def test_views_beside_a_plain_uri(self, keep, tmp_path):
        view = pa.array(["1", "2"], pa.string_view())
        uri = write(tmp_path / "m", {"uri": ["a.jpg", "b.jpg"], (keep or ["image_id"])[0]: view})
        column = read(uri, keep).column((keep or ["image_id"])[0])
        assert (column.type, column.to_pylist()) == (pa.string(), ["1", "2"])

    def test_uris_and_ids_that_are_both_unmarked(self, tmp_path):
        table = {"uri": [b"a.jpg", "é.jpg".encode()], "image_id": [b"1", b"2"]}
        rows = read(write(tmp_path / "m", table))
        assert rows.column("uri").to_pylist() == ["a.jpg", "é.jpg"]
        assert rows.column("image_id").to_pylist() == ["1", "2"]

    def test_an_image_id_of_a_fixed_size_is_no_text(self, tmp_path):
        ids = pa.array([bytes(range(16))], pa.binary(16))
        uri = write(tmp_path / "m", {"uri": ["1"], "image_id": ids})
        assert read(uri).column("image_id").to_pylist() == [bytes(range(16))]

    @pytest.mark.parametrize("column", ["image_id", "label"])
    def test_strings_that_are_no_utf8_are_made_text(self, column, tmp_path):
        offsets = pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0]))
        broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"a\xff")])
        uri = write(tmp_path / "m", {"uri": ["1"], column: broken})
        keep = [column] if column == "label" else []
        assert read(uri, keep).column(column).to_pylist() == ["a\\xff"]


class TestImages:
    @pytest.mark.parametrize("kind", BYTES_TYPES, ids=str)
    def test_bytes_in_every_type(self, kind, tmp_path):
        uri = write(tmp_path / "m", {"image": array(BYTES, kind)})
        assert read(uri).column("_data").to_pylist() == BYTES

    def test_bytes_that_are_all_as_long(self, tmp_path):
        uri = write(tmp_path / "m", {"image": pa.array([b"ab", None, b"cd"], pa.binary(2))})
        assert read(uri).column("_data").to_pylist() == [b"ab", None, b"cd"]

    @pytest.mark.parametrize("path", [pa.string_view(), pa.large_string(), pa.binary()], ids=str)
    @pytest.mark.parametrize("data", BYTES_TYPES[:3], ids=str)
    def test_structs_of_every_type(self, data, path, tmp_path):
        paths = array(["one", "two", None], path)
        fields = [array([b"1", None, None], data), paths]
        images = pa.StructArray.from_arrays(fields, names=["bytes", "path"])
        table = read(write(tmp_path / "m", {"image": images, "more": ["x"] * 3}))
        assert table.column("_data").to_pylist() == [b"1", None, None]
        assert table.column("uri").to_pylist() == [None, "two", None]

    def test_structs_of_paths_only(self, tmp_path):
        kind = pa.struct([("bytes", pa.null()), ("path", pa.string())])
        images = pa.array([{"bytes": None, "path": "x.jpg"}, None], kind)
        assert read(write(tmp_path / "m", {"image": images})).column("uri").to_pylist() == [
            "x.jpg",
            None,
        ]

    @pytest.mark.parametrize(
        ("images", "text"),
        [
            ([[{"bytes": b"1", "path": "a"}]], "of a list of images, write a row for each"),
            ([[255, 216]], "write bytes as binary"),
            ([{"path": "a"}], "must be binary or struct<bytes, path>"),
            ([{"bytes": b"1", "path": 7}], "`path` must be a string"),
        ],
    )
    def test_other_forms_are_refused(self, images, text, tmp_path):
        with pytest.raises(InputError, match=text):
            open_manifest(write(tmp_path / "m", {"image": images}))


class TestKept:
    def test_views_become_types_that_every_reader_knows(self, tmp_path):
        table = {
            "uri": ["1", "2"],
            "text": array(["a", None], pa.string_view()),
            "blob": array([b"\xff", None], pa.binary_view()),
            "tags": pa.array([["x"], None], pa.list_(pa.string_view())),
            "more": pa.array([{"k": "v"}, None], pa.struct([("k", pa.string_view())])),
            "pairs": pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.string_view())),
        }
        keep = ["text", "blob", "tags", "more", "pairs"]
        found = read(write(tmp_path / "m", table), keep).select(keep)
        kinds = ["string", "binary", "list<", "struct<k: string>", "map<string, string"]
        assert all(str(f.type).startswith(k) for f, k in zip(found.schema, kinds, strict=True))
        assert found.to_pylist()[0] == {
            "text": "a",
            "blob": b"\xff",
            "tags": ["x"],
            "more": {"k": "v"},
            "pairs": [("k", "v")],
        }
        pq.write_table(found, tmp_path / "o.parquet")
        assert pd.read_parquet(tmp_path / "o.parquet").text.tolist()[0] == "a"

    @pytest.mark.parametrize(
        "kind",
        [
            pa.string(),
            pa.large_string(),
            pa.int64(),
            pa.binary(),
            pa.binary(4),
            pa.null(),
            pa.dictionary(pa.int32(), pa.string()),
            pa.timestamp("ns", "Europe/Paris"),
            pa.list_(pa.field("element", pa.int64())),
        ],
        ids=str,
    )
    def test_other_types_stay_as_they_are(self, kind):
        # Outputs that were begun with them must resume: their fingerprint has these names.
        assert str(unified_type("x", {"a": kind, "b": kind})) == str(kind)
        assert str(column_type("x", kind)) == str(kind)

    def test_columns_that_folders_state(self, tmp_path):
        for folder, uri in (("split=train/day=1%2F2", "1"), ("split=test/day=x", "2")):
            (tmp_path / "m" / folder).mkdir(parents=True)
            pq.write_table(pa.table({"uri": [uri]}), tmp_path / "m" / folder / "part-0.parquet")
        (tmp_path / "m/split=__HIVE_DEFAULT_PARTITION__/day=y").mkdir(parents=True)
        name = "m/split=__HIVE_DEFAULT_PARTITION__/day=y/0.parquet"
        pq.write_table(pa.table({"uri": ["3"], "day": ["own"]}), tmp_path / name)
        rows = read(str(tmp_path / "m"), ["split", "day"]).to_pylist()
        assert {(row["uri"], row["split"], row["day"]) for row in rows} == {
            ("1", "train", "1/2"),
            ("2", "test", "x"),
            ("3", None, "own"),
        }
        with pytest.raises(InputError, match=r"keep 'hour' is no column .* has uri, day, split$"):
            open_manifest(str(tmp_path / "m"), ["hour"])


DAY = datetime.date(2024, 2, 29)
UNIFIED = [
    ([1], pa.int32(), [2**40], pa.int64(), pa.int64()),
    ([2**53], pa.int64(), [0.5], pa.float64(), pa.float64()),
    ([1], pa.int8(), [0.5], pa.float32(), pa.float32()),
    ([2**32 - 1], pa.uint32(), [-1], pa.int32(), pa.int64()),
    (["a"], pa.string(), ["b"], pa.large_string(), pa.large_string()),
    (["a"], pa.string(), ["b"], pa.string_view(), pa.string()),
    (["a"], pa.string(), [b"b"], pa.binary(), pa.string()),
    ([None], pa.null(), ["b"], pa.string_view(), pa.string()),
    ([None], pa.null(), ["cat"], pa.string(), pa.string()),
    ([1], pa.int64(), [1.5], pa.float64(), pa.float64()),
    ([None], pa.null(), [1.5], pa.float32(), pa.float32()),
    (["a"], pa.dictionary(pa.int8(), pa.string()), ["b"], pa.string(), pa.string()),
    ([DAY], pa.date32(), [datetime.datetime(2024, 1, 1)], pa.timestamp("us"), pa.timestamp("us")),
    (
        [decimal.Decimal("1.5")],
        pa.decimal128(5, 2),
        [decimal.Decimal(2)],
        pa.decimal128(9, 3),
        pa.decimal128(9, 3),
    ),
]


class TestSeveralFiles:
    @pytest.mark.parametrize("swapped", [False, True])
    @pytest.mark.parametrize(("one", "kind", "two", "other", "expected"), UNIFIED)
    def test_types_that_go_together(self, one, kind, two, other, expected, swapped, tmp_path):
        def made(values, kind):
            if pa.types.is_dictionary(kind):
                return pa.array(values).dictionary_encode().cast(kind)
            return pa.array(values, kind)

        tables = [
            {"uri": ["1"], "x": made(one, kind)},
            {"x": made(two, other), "uri": ["2"], "y": [1]},
        ]
        uri = write(tmp_path / "m", *(tables[::-1] if swapped else tables))
        found = read(uri, ["x"]).sort_by("uri").column("x")
        assert found.type == expected
        values = [v.decode() if isinstance(v, bytes) else v for v in (*one, *two)]
        values = [datetime.datetime(2024, 2, 29) if v is DAY else v for v in values]
        assert found.to_pylist() == pa.array(values, expected).to_pylist()

    @pytest.mark.parametrize(
        ("kind", "other"),
        [
            (pa.bool_(), pa.int64()),
            (pa.timestamp("us", "UTC"), pa.timestamp("us")),
            (pa.timestamp("us", "UTC"), pa.date32()),
            (pa.decimal128(10, 2), pa.float64()),
            (pa.binary(16), pa.string()),
            (pa.list_(pa.string()), pa.string()),
        ],
        ids=str,
    )
    def test_types_that_do_not(self, kind, other, tmp_path):
        uri = write(
            tmp_path / "m",
            {"uri": ["1"], "x": pa.nulls(1, kind)},
            {"uri": ["1"], "x": pa.nulls(1)},
            {"uri": ["1"], "x": pa.nulls(1, other)},
        )
        with pytest.raises(
            InputError, match=r"column 'x' is .* in c\.parquet but .* in a\.parquet"
        ):
            open_manifest(uri, ["x"])

    def test_a_number_that_the_common_type_does_not_hold(self, tmp_path):
        uri = write(
            tmp_path / "m",
            {"uri": ["1"], "x": [0.25]},
            {"uri": ["2", "3"], "x": [1, 2**53 + 1]},
        )
        text = r"column 'x' of .*b\.parquet is int64, .* make it double, .*9007199254740993"
        with pytest.raises(InputError, match=text):
            read(uri, ["x"])

    @pytest.mark.parametrize("swapped", [False, True])
    def test_image_ids_that_only_some_files_have(self, swapped, tmp_path):
        tables = [{"uri": ["1"], "image_id": [7]}, {"uri": ["2"]}]
        uri = write(tmp_path / "m", *(tables[::-1] if swapped else tables))
        rows = read(uri).sort_by("uri").to_pylist()
        assert [row["image_id"] for row in rows] == [7, None]

    @pytest.mark.parametrize("swapped", [False, True])
    @pytest.mark.parametrize(
        ("ids", "kind"), [([None], pa.null()), (["y"], pa.large_string())], ids=["null", "large"]
    )
    def test_image_ids_of_types_that_go_together(self, ids, kind, swapped, tmp_path):
        tables = [
            {"uri": ["a"], "image_id": ["x"], "label": ["cat"], "mos": [1.5]},
            {"uri": ["b"], "image_id": pa.array(ids, kind)},
        ]
        uri = write(tmp_path / "m", *(tables[::-1] if swapped else tables))
        rows = read(uri).sort_by("uri").to_pylist()
        assert [row["image_id"] for row in rows] == ["x", *ids]

    def test_a_file_of_uris_and_a_file_of_images_whose_uri_has_no_type(self, tmp_path):
        uri = write(
            tmp_path / "m",
            {"uri": ["a"], "image_id": ["x"], "label": ["cat"], "mos": [1.5]},
            {"uri": pa.nulls(1), "image": [b"x"], "image_id": ["y"]},
        )
        rows = read(uri).to_pylist()
        assert [(row["uri"], row["_data"]) for row in rows] == [("a", None), (None, b"x")]

    def test_numbers_with_gaps_as_pandas_writes_them(self, tmp_path):
        first = pd.DataFrame({"uri": ["1", "2"], "image_id": [7, None]})
        second = pd.DataFrame({"uri": ["3"], "image_id": [8]})
        (tmp_path / "m").mkdir()
        first.to_parquet(tmp_path / "m/a.parquet")
        second.to_parquet(tmp_path / "m/b.parquet")
        assert read(str(tmp_path / "m")).column("image_id").to_pylist() == [7, None, 8]

    def test_images_in_some_files_and_uris_in_others(self, tmp_path):
        uri = write(
            tmp_path / "m",
            {"uri": ["1"], "image_id": ["x"]},
            {"image_id": ["y"], "image": [b"2"], "uri": pa.nulls(1)},
            {"image": [{"bytes": None, "path": "3"}], "uri": pa.nulls(1)},
        )
        rows = read(uri).to_pylist()
        assert [(row["uri"], row["_data"], row["image_id"]) for row in rows] == [
            ("1", None, "x"),
            (None, b"2", "y"),
            ("3", None, None),
        ]

    def test_a_column_that_is_there_twice(self, tmp_path):
        table = pa.table([["a"], ["b"]], names=["uri", "uri"])
        pq.write_table(table, tmp_path / "m.parquet")
        with pytest.raises(InputError, match="has 2 columns named uri"):
            open_manifest(str(tmp_path / "m.parquet"))
