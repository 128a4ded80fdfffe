"""Where the images of selected rows are."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.selecting.images import ImageSource, open_images
from iqa_core.storage.folder import Folder
from iqa_core.tables.manifest import open_manifest


def located(source, uris, output, rows=None, status=None):
    count = len(uris)
    numbers = list(range(count)) if rows is None else rows
    columns = {
        "manifest_file": ["m.parquet"] * count,
        "manifest_row": pa.array(numbers, pa.int64()),
        "uri": pa.array(uris, pa.string()),
        "status": ["timeout" if uri is None and status is None else "ok" for uri in uris],
    }
    tables = list(source.located([pa.record_batch(columns)], Folder.of(str(output))))
    return pa.concat_tables(tables)


@pytest.mark.parametrize(
    "uri",
    [
        "a.jpg",
        "deep/b c.jpg",
        "shard.tar#bytes=512-1023",
        "../x.jpg",
        "/abs/y.jpg",
        "s3://box/k.jpg",
    ],
)
def test_a_uri_means_the_same_beside_another_manifest(uri, tmp_path):
    before = tmp_path / "lists"
    source = ImageSource(str(before))
    for output in (tmp_path / "lists", tmp_path, tmp_path / "elsewhere"):
        [there] = located(source, [uri], output)["uri"].to_pylist()
        resolved = Fetcher(str(output)).resolve(there)
        assert resolved.replace("/lists/../", "/") == Fetcher(str(before)).resolve(uri).replace(
            "/lists/../", "/"
        )


def test_what_is_below_the_output_is_relative(tmp_path):
    source = ImageSource(str(tmp_path / "lists"))
    uris = ["a.jpg", str(tmp_path / "lists/x.jpg"), None, f"{tmp_path}/s3://odd.jpg"]
    assert located(source, uris, tmp_path)["uri"].to_pylist() == [
        *("lists/a.jpg", "lists/x.jpg", None, f"{tmp_path}/s3://odd.jpg")
    ]


def test_beside_a_remote_manifest(tmp_path):
    source = ImageSource("s3://box/lists/")
    assert located(source, ["a.tar#bytes=0-9"], tmp_path)["uri"].to_pylist() == [
        "s3://box/lists/a.tar#bytes=0-9"
    ]


def test_a_relative_uri_of_an_unknown_place(tmp_path):
    with pytest.raises(InputError, match=r"the uri a\.jpg is relative .* give manifest"):
        located(open_images({}), ["a.jpg"], tmp_path)


class TestTheManifestItself:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "lists"
        folder.mkdir()
        images = [{"bytes": b"%d" % i, "path": f"{i}.jpg"} for i in range(2500)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(images, kind)})
        pq.write_table(table, folder / "m.parquet", row_group_size=700)
        return folder

    def plan(self, folder):
        return {"manifest": str(folder / "m.parquet"), "files": [{"name": "m.parquet"}]}

    def test_inline_images_are_taken_along(self, folder, tmp_path):
        source = open_images(self.plan(folder))
        assert source.folder is not None
        rows = [0, 3, 699, 700, 2001, 2499]
        table = located(source, [f"{i}.jpg" for i in rows], tmp_path, rows)
        assert table["image"].to_pylist() == [b"%d" % i for i in rows]
        assert table["manifest_row"].to_pylist() == rows

    def test_a_manifest_of_uris_is_not_read_again(self, tmp_path):
        pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "m.parquet")
        assert open_images(self.plan(tmp_path)) == ImageSource(str(tmp_path))

    def test_its_own_uris_where_it_is_given(self, tmp_path):
        signed = "https://host/a.jpg?X-Amz-Signature=abc"
        pq.write_table(pa.table({"uri": [signed, "b.jpg"]}), tmp_path / "m.parquet")
        source = open_images(self.plan(tmp_path), str(tmp_path / "m.parquet"))
        table = located(source, ["https://host/a.jpg", "b.jpg"], tmp_path / "other")
        assert table["uri"].to_pylist() == [signed, f"{tmp_path}/b.jpg"]

    def test_one_that_is_gone_or_changed(self, folder, tmp_path):
        plan = self.plan(folder)
        source = open_images(plan)
        with pytest.raises(InputError, match="has 2,500 rows, but row 9,999 was scored"):
            located(source, ["a"], tmp_path, [9999])
        (folder / "m.parquet").unlink()
        assert open_images(plan).folder is None
        with pytest.raises(InputError, match="does not exist"):
            open_images(plan, str(folder / "m.parquet"))


def test_a_row_without_uri_whose_manifest_is_unknown(tmp_path):
    with pytest.raises(InputError, match="have no uri, as their images are in the manifest"):
        located(ImageSource("/x"), [None], tmp_path, status="ok")


def test_a_manifest_that_was_rewritten_is_refused(tmp_path):
    """With as many rows, in another order: its images are not those that were scored."""
    path = tmp_path / "m.parquet"
    images = [b"%d" % i for i in range(50)]
    pq.write_table(pa.table({"image": images}), path)
    source = open_images(open_manifest(str(path)).plan())
    assert located(source, [None], tmp_path, [7], "ok")["image"].to_pylist() == [b"7"]
    pq.write_table(pa.table({"image": images[::-1]}), path)
    with pytest.raises(
        InputError, match=r"manifest file m\.parquet has changed since it was scored"
    ):
        located(source, [None], tmp_path, [7], "ok")
    pq.write_table(pa.table({"image": [*images, b"x"]}), path)
    with pytest.raises(InputError, match=r"\(it had 50 rows, and has 51\)"):
        located(source, [None], tmp_path, [7], "ok")


def test_a_manifest_that_has_other_uris_is_refused(tmp_path):
    pq.write_table(pa.table({"uri": ["a.jpg", None]}), tmp_path / "m.parquet")
    source = open_images({}, str(tmp_path / "m.parquet"))
    assert located(source, ["a.jpg", "https://h/b.jpg"], tmp_path)["uri"].to_pylist() == [
        *("a.jpg", "https://h/b.jpg")  # of another column, which `--uri-column` named
    ]
    with pytest.raises(InputError, match=r"has the uri a\.jpg where z\.jpg was scored"):
        located(source, ["z.jpg"], tmp_path)


def test_a_remote_manifest_names_no_file_of_this_machine(tmp_path):
    source = ImageSource("s3://box/lists")
    for uri in ("/etc/passwd", "file:///etc/passwd", "local:///etc/passwd"):
        with pytest.raises(InputError, match="names a file of this machine, but the manifest"):
            located(source, ["a.jpg", uri], tmp_path)


def test_features_without_images(tmp_path):
    plan = {"manifest": str(tmp_path / "f.npy"), "files": [{"name": "f.npy", "rows": 3}]}
    source = open_images(plan)
    assert "don't say where the images are" in source.note
    assert located(source, [None], tmp_path, status="ok")["uri"].to_pylist() == [None]
    pq.write_table(pa.table({"emb": [[1.0]]}), tmp_path / "f.parquet")
    plan = {"manifest": str(tmp_path / "f.parquet"), "files": [{"name": "f.parquet"}]}
    assert located(open_images(plan), [None], tmp_path, status="ok")["uri"].to_pylist() == [None]
