"""Tests of iqa_core/listing.py on real folders, shards and lists."""

from __future__ import annotations

import io
import tarfile

import pyarrow.parquet as pq
import pytest

from iqa_core.fetching import Fetcher
from iqa_core.listing import find_images, write_manifest
from iqa_core.schema import InputError


class TestFinding:
    def test_folders_and_globs(self, tmp_path):
        for name in ("b.JPG", "a.png", "sub/c.webp", "notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        table, left_out = find_images([str(tmp_path)])
        assert table.column("image_id").to_pylist() == ["a.png", "b.JPG", "sub/c.webp"]
        assert left_out == 1
        table, _ = find_images([str(tmp_path / "*.png")])
        assert table.column("uri").to_pylist() == [str(tmp_path / "a.png")]
        with pytest.raises(InputError, match="does not exist"):
            find_images([str(tmp_path / "none")])
        (tmp_path / "sub/c.webp").unlink()
        with pytest.raises(InputError, match="no image among 0 files"):
            find_images([str(tmp_path / "sub")])

    def test_images_in_tar_shards_are_named_in_place(self, tmp_path):
        contents = {"0001.jpg": b"first", "0001.json": b"{}", "deep/0002.png": b"the second"}
        with tarfile.open(tmp_path / "shard-0.tar", "w") as shard:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
        table, left_out = find_images([str(tmp_path)])
        assert left_out == 1
        ids = ["shard-0.tar/0001.jpg", "shard-0.tar/deep/0002.png"]
        assert table.column("image_id").to_pylist() == ids
        fetcher = Fetcher(str(tmp_path))
        read = [fetcher.fetch(uri) for uri in table.column("uri").to_pylist()]
        assert read == [b"first", b"the second"]
        write_manifest(table, str(tmp_path / "m.parquet"))
        stored = pq.read_table(tmp_path / "m.parquet").column("uri").to_pylist()
        assert stored[0].startswith("shard-0.tar#bytes=")
        (tmp_path / "bad.tar").write_bytes(b"no tar")
        with pytest.raises(InputError, match=r"bad\.tar can't be read as an uncompressed tar"):
            find_images([str(tmp_path)])

    def test_csv_files_keep_their_columns(self, tmp_path):
        lines = ["path,mos,by", "a.jpg,1.5,me", '"b, c.jpg",NA,', "s3://x/y.jpg,3,you", ",4,none"]
        (tmp_path / "list.csv").write_text("\n".join(lines))
        table, _ = find_images([str(tmp_path / "list.csv")])
        assert table.to_pydict() == {
            "uri": [f"{tmp_path}/a.jpg", f"{tmp_path}/b, c.jpg", "s3://x/y.jpg", None],
            "mos": [1.5, None, 3.0, 4.0],
            "by": ["me", None, "you", "none"],
        }
        with pytest.raises(InputError, match="none of photo: name the column"):
            find_images([str(tmp_path / "list.csv")], "photo")

    def test_images_below_the_manifest_are_named_relative_to_it(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in/a.jpg").write_bytes(b"x")
        table, _ = find_images([str(tmp_path / "in")])
        write_manifest(table, str(tmp_path / "m.parquet"))
        assert pq.read_table(tmp_path / "m.parquet").column("uri").to_pylist() == ["in/a.jpg"]
        write_manifest(table, str(tmp_path / "other/m.parquet"))
        stored = pq.read_table(tmp_path / "other/m.parquet").column("uri").to_pylist()
        assert stored == [str(tmp_path / "in/a.jpg")]
