"""Tests of iqa_core/tables/listing.py on real folders, shards and lists."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import socket
import tarfile
import tempfile
import unicodedata
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.tables.listing import METADATA_KEY, find_images, write_manifest
from iqa_core.tables.listing_report import Reason


def write(folder, *names):
    """Write files whose content is their name."""
    for name in names:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(os.fsencode(name))


def listed(*sources):
    """Return the ids of the images, and the counts by reason."""
    table, report = find_images([str(source) for source in sources])
    counts = {reason: tally.count for reason, tally in report.tallies.items()}
    return table.column("image_id").to_pylist(), counts


class TestFinding:
    def test_folders_and_globs(self, tmp_path):
        for name in ("b.JPG", "a.png", "sub/c.webp", "notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        table, left_out = find_images([str(tmp_path)])
        assert table.column("image_id").to_pylist() == ["a.png", "b.JPG", "sub/c.webp"]
        assert left_out.total == 1
        table, _ = find_images([str(tmp_path / "*.png")])
        assert table.column("uri").to_pylist() == [str(tmp_path / "a.png")]
        table, report = find_images([str(tmp_path), str(tmp_path / "sub")])
        assert len(table) == 4
        repeated = "1 rows have an image that an earlier row has, too: each will be scored"
        assert report.lines()[-1] == f"{repeated} ({tmp_path}/sub/c.webp)"
        with pytest.raises(InputError, match="does not exist"):
            find_images([str(tmp_path / "none")])
        (tmp_path / "sub/c.webp").unlink()
        with pytest.raises(InputError, match="no image among 0 files"):
            find_images([str(tmp_path / "sub")])
        (tmp_path / "head.csv").write_text("path,mos\n")
        with pytest.raises(InputError, match=r"head\.csv: no rows: give a list with at least one"):
            find_images([str(tmp_path / "head.csv")])

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

    def test_the_summary_is_in_the_manifest(self, tmp_path):
        write(tmp_path, "in/a.jpg", "in/b.txt", "in/c.txt")
        table, report = find_images([str(tmp_path / "in")])
        write_manifest(table, str(tmp_path / "m.parquet"), report.document())
        document = json.loads(pq.read_schema(tmp_path / "m.parquet").metadata[METADATA_KEY])
        (found,) = document["left_out"].items()
        assert found[0] == "suffix"
        assert found[1]["count"] == 2
        assert found[1]["example"] in ("b.txt", "c.txt")
        assert (document["corrected"], document["doubtful"], document["notes"]) == ({}, {}, [])


class TestSystemFiles:
    NAMES = (
        *("a.jpg", "deep/b.png"),
        *("._b.png", "deep/._b.png", ".DS_Store", ".cache/c.jpg", ".a.jpg.icloud"),
        *("__MACOSX/deep/._b.png", ".Trash-1000/files/c.jpg", "deep/@eaDir/b.png/SYNO_M.jpg"),
        *("#recycle/c.jpg", "@Recycle/c.jpg", "Thumbs.db", "deep/THUMBS.DB", "lost+found/c.jpg"),
        *("$RECYCLE.BIN/c.jpg", "System Volume Information/c.jpg", ".thumbnails/large/c.png"),
    )

    def test_they_are_left_out_and_counted(self, tmp_path):
        write(tmp_path, *self.NAMES)
        expected = (["a.jpg", "deep/b.png"], {Reason.HIDDEN: 16})
        assert listed(tmp_path) == expected
        assert listed(f"{tmp_path}/**") == expected

    def test_a_folder_copied_from_a_mac_and_a_nas(self, tmp_path):
        names = ["a.jpg", "._a.jpg", "__MACOSX/._a.jpg", ".thumbnails/a.jpg"]
        write(tmp_path / "photos", *names, "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg")
        assert listed(tmp_path / "photos") == (["a.jpg"], {Reason.HIDDEN: 4})
        with tarfile.open(tmp_path / "s.tar", "w") as shard:
            for name in names[:2]:
                member = tarfile.TarInfo(name)
                member.size = 1
                shard.addfile(member, io.BytesIO(b"x"))
        assert listed(tmp_path / "s.tar") == (["s.tar/a.jpg"], {Reason.HIDDEN: 1})

    def test_on_a_remote_store_and_in_shards(self, tmp_path):
        fs = fsspec.filesystem("memory")
        for name in self.NAMES:
            fs.pipe_file(f"/shadows/{name}", b"x")
        ids, counts = listed("memory://shadows")
        assert (ids, counts) == (["a.jpg", "deep/b.png"], {Reason.HIDDEN: 16})
        assert listed("memory://shadows/**/*.png")[0] == ["b.png"]
        with tarfile.open(tmp_path / "s.tar", "w") as shard:
            for name in self.NAMES:
                shard.addfile(tarfile.TarInfo(f"./{name}"), io.BytesIO())
        ids, counts = listed(tmp_path)
        assert (ids, counts) == (["s.tar/a.jpg", "s.tar/deep/b.png"], {Reason.HIDDEN: 16})

    def test_those_that_a_user_names_are_listed(self, tmp_path):
        write(tmp_path, *self.NAMES)
        assert listed(tmp_path / ".thumbnails")[0] == ["large/c.png"]
        assert listed(tmp_path / "._b.png")[0] == ["._b.png"]
        assert listed(f"{tmp_path}/.Trash*/files")[0] == ["c.jpg"]
        assert listed(f"{tmp_path}/*/@eaDir/*/*.jpg")[0] == ["SYNO_M.jpg"]
        assert listed(f"{tmp_path}/._*")[0] == ["._b.png"]


class TestGlobs:
    def test_parts_and_any_depth(self, tmp_path):
        write(tmp_path, "a/x/1.jpg", "a/y/2.jpg", "b/x/3.jpg", "b/x/z/4.jpg", "5.jpg")
        assert listed(f"{tmp_path}/*/x/*.jpg")[0] == ["a/x/1.jpg", "b/x/3.jpg"]
        assert listed(f"{tmp_path}/b/**/*.jpg")[0] == ["3.jpg", "z/4.jpg"]
        assert listed(f"{tmp_path}/**/[14].jpg")[0] == ["a/x/1.jpg", "b/x/z/4.jpg"]
        assert listed(f"{tmp_path}/?.jpg")[0] == ["5.jpg"]

    def test_folders_that_match_are_searched(self, tmp_path):
        write(tmp_path, "2023-a/1.jpg", "2023-b/deep/2.jpg", "2024/3.jpg")
        assert listed(f"{tmp_path}/2023-*")[0] == ["2023-a/1.jpg", "2023-b/deep/2.jpg"]

    def test_names_that_hold_the_signs_of_a_pattern(self, tmp_path):
        write(tmp_path, "trip [2023]/a?.jpg", "trip [2023]/b.jpg", "trip 2/c.jpg")
        assert listed(tmp_path / "trip [2023]")[0] == ["a?.jpg", "b.jpg"]
        assert listed(tmp_path / "trip [2023]/*.jpg")[0] == ["a?.jpg", "b.jpg"]
        assert listed(tmp_path / "trip [2023]/a?.jpg")[0] == ["a?.jpg"]

    def test_one_that_matches_nothing(self, tmp_path):
        write(tmp_path, "a.jpg")
        with pytest.raises(InputError, match=r"\*\.png matches no file: check the pattern"):
            find_images([str(tmp_path), str(tmp_path / "*.png")])


class TestLinks:
    def test_linked_folders_are_followed(self, tmp_path):
        write(tmp_path, "photos/a.jpg", "disk/b.jpg", "disk/deep/c.jpg", "disk3/d.jpg")
        (tmp_path / "photos/more").symlink_to(tmp_path / "disk")
        (tmp_path / "disk/deep/next").symlink_to("../../disk3")
        expected = ["a.jpg", "more/b.jpg", "more/deep/c.jpg", "more/deep/next/d.jpg"]
        assert listed(tmp_path / "photos") == (expected, {})
        assert listed(f"{tmp_path}/photos/**/*.jpg")[0] == expected
        assert listed(f"{tmp_path}/photos/more/*/next/*.jpg")[0] == ["d.jpg"]
        assert listed(f"{tmp_path}/photos/*/*.jpg")[0] == ["b.jpg"]

    def test_links_that_lead_back_are_told(self, tmp_path):
        write(tmp_path, "photos/a.jpg", "photos/x/b.jpg", "other/c.jpg")
        (tmp_path / "photos/x/up").symlink_to("..")
        (tmp_path / "photos/above").symlink_to(tmp_path)
        (tmp_path / "photos/self.jpg").symlink_to("self.jpg")
        ids, counts = listed(tmp_path / "photos")
        assert ids == ["a.jpg", "above/other/c.jpg", "x/b.jpg"]
        # above/photos, x/up; a link to itself is no folder
        assert counts == {Reason.LISTED_ALREADY: 2, Reason.BROKEN_LINK: 1}
        (tmp_path / "photos/self").symlink_to(tmp_path / "photos")
        assert listed(tmp_path / "photos") == (ids, counts | {Reason.LISTED_ALREADY: 3})

    def test_a_folder_is_listed_once_under_its_own_name(self, tmp_path):
        write(tmp_path, "2024-05/a.jpg", "2024-06/b.jpg", "elsewhere/c.jpg")
        (tmp_path / "0-latest").symlink_to("2024-06")
        assert listed(tmp_path)[0] == ["2024-05/a.jpg", "2024-06/b.jpg", "elsewhere/c.jpg"]
        (tmp_path / "2024-05/l1").symlink_to("../elsewhere")
        (tmp_path / "2024-05/l2").symlink_to("../elsewhere")
        ids, counts = listed(tmp_path / "2024-05")
        assert (ids, counts) == (["a.jpg", "l1/c.jpg"], {Reason.LISTED_ALREADY: 1})

    def test_linked_files_are_rows_of_their_own(self, tmp_path):
        write(tmp_path, "all/a.jpg")
        (tmp_path / "best").mkdir()
        (tmp_path / "best/first.jpg").symlink_to("../all/a.jpg")
        (tmp_path / "best/gone.jpg").symlink_to("../all/gone.jpg")
        ids, counts = listed(tmp_path)
        assert (ids, counts) == (["all/a.jpg", "best/first.jpg"], {Reason.BROKEN_LINK: 1})

    def test_what_is_no_regular_file(self, tmp_path):
        write(tmp_path, "a.jpg")
        os.mkfifo(tmp_path / "pipe.jpg")
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path may not be long
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
                bound.bind("socket.jpg")
                assert listed(".") == (["a.jpg"], {Reason.NOT_REGULAR: 2})
        finally:
            os.chdir(here)


@contextlib.contextmanager
def an_ordinary_user():
    """Take root's rights away, which ignore permissions."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


def test_folders_that_may_not_be_read_are_counted():
    # not tmp_path, which lies in a folder of root's own
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - for any user
        write(folder, "a.jpg", "secret/b.jpg", "open/c.jpg")
        os.chmod(f"{folder}/secret", 0)
        with an_ordinary_user():
            table, report = find_images([folder])
            with pytest.raises(InputError, match="no image among 1 files: 1 folders left out"):
                find_images([f"{folder}/secret"])
        assert table["image_id"].to_pylist() == ["a.jpg", "open/c.jpg"]
        assert report.lines() == [
            "1 folders left out: they can't be read: change their permissions or the user "
            "(secret: Permission denied)"
        ]
        os.chmod(f"{folder}/secret", 0o700)


class TestNames:
    def test_those_in_older_encodings_are_read_back(self, tmp_path):
        shift_jis, latin_1 = "写真.jpg".encode("shift_jis"), "Größe".encode("latin-1")
        names = [b"good.jpg", "写真.jpg".encode(), shift_jis, latin_1 + b"/a.jpg"]
        for name in (*names, latin_1 + b"/b.txt"):
            path = os.fsencode(tmp_path) + b"/" + name
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(name)
        table, report = find_images([str(tmp_path)])
        assert {reason: tally.count for reason, tally in report.tallies.items()} == {
            Reason.SUFFIX: 1
        }
        json.dumps(report.document()).encode()
        write_manifest(table, str(tmp_path / "m.parquet"))
        stored = pq.read_table(tmp_path / "m.parquet").to_pydict()
        fetcher = Fetcher(str(tmp_path))
        assert {fetcher.fetch(uri) for uri in stored["uri"]} == set(names)
        assert r"Gr\xf6\xdfe/a.jpg" in stored["image_id"]
        folder = os.fsdecode(os.fsencode(tmp_path) + b"/" + latin_1)
        assert find_images([folder])[0]["image_id"].to_pylist() == ["a.jpg"]

    def test_shards_in_older_encodings_are_counted(self, tmp_path):
        write(tmp_path, "good.jpg", "Größe".encode("latin-1") + b".tar")
        table, report = find_images([str(tmp_path)])
        assert table["image_id"].to_pylist() == ["good.jpg"]
        assert report.tallies[Reason.NOT_UTF8].count == 1
        assert report.tallies[Reason.NOT_UTF8].example == r"Gr\xf6\xdfe.tar"

    def test_any_others_are_read_back(self, tmp_path):
        names = [
            *("line\nbreak.jpg", "tab\there.jpg", "a#b.jpg", "what?.jpg", "100%.jpg", "%41.jpg"),
            *("a\\b.jpg", " blank .jpg", "'quoted'.jpg", "[x]*.jpg", "a:b.jpg", "~x.jpg"),
            *(unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")),
        ]
        write(tmp_path, *names)
        table, report = find_images([str(tmp_path)])
        assert report.total == 0
        write_manifest(table, str(tmp_path / "m.parquet"))
        stored = pq.read_table(tmp_path / "m.parquet").to_pydict()
        assert sorted(stored["image_id"]) == sorted(names)
        fetcher = Fetcher(str(tmp_path))
        assert [fetcher.fetch(uri).decode() for uri in stored["uri"]] == stored["image_id"]

    def test_a_folder_whose_accents_are_typed_in_the_other_form(self, tmp_path):
        composed, apart = (unicodedata.normalize(form, "Fotos für é") for form in ("NFC", "NFD"))
        write(tmp_path, f"{apart}/a.jpg")
        table, _ = find_images([str(tmp_path / composed)])
        assert table["uri"].to_pylist() == [f"{tmp_path}/{apart}/a.jpg"]

    def test_those_that_a_manifest_would_misread(self, tmp_path):
        write(tmp_path, "10::30.jpg", "a#bytes=1-2/b.jpg", "x.jpg", "y.tar#bytes=1-2")
        ids, counts = listed(tmp_path)
        assert (ids, counts) == (
            ["a#bytes=1-2/b.jpg", "x.jpg"],
            {Reason.LIKE_URI: 1, Reason.SUFFIX: 1},
        )


class TestShards:
    def shard(self, path, *members):
        """Write a tar file of (name, content) and (name, type, target)."""
        with tarfile.open(path, "w") as shard:
            for name, *rest in members:
                member = tarfile.TarInfo(name)
                if len(rest) == 2:
                    member.type, member.linkname = rest
                    shard.addfile(member)
                else:
                    member.size = len(rest[0])
                    shard.addfile(member, io.BytesIO(rest[0]))
        return path

    def read(self, *sources):
        """Return id -> content, and the counts by reason."""
        table, report = find_images([str(source) for source in sources])
        fetcher = Fetcher("/")
        contents = [fetcher.fetch(uri) for uri in table["uri"].to_pylist()]
        counts = {reason: tally.count for reason, tally in report.tallies.items()}
        return dict(zip(table["image_id"].to_pylist(), contents, strict=True)), counts

    def test_images_in_tar_shards_are_named_in_place(self, tmp_path):
        self.shard(
            tmp_path / "shard-0.tar",
            *(("0001.jpg", b"first"), ("0001.json", b"{}"), ("deep/0002.png", b"the second")),
        )
        table, left_out = find_images([str(tmp_path)])
        assert left_out.total == 1
        ids = ["shard-0.tar/0001.jpg", "shard-0.tar/deep/0002.png"]
        assert table.column("image_id").to_pylist() == ids
        fetcher = Fetcher(str(tmp_path))
        read = [fetcher.fetch(uri) for uri in table.column("uri").to_pylist()]
        assert read == [b"first", b"the second"]
        write_manifest(table, str(tmp_path / "m.parquet"))
        stored = pq.read_table(tmp_path / "m.parquet").column("uri").to_pylist()
        assert stored[0].startswith("shard-0.tar#bytes=")

    def test_one_that_is_no_tar_costs_only_itself(self, tmp_path):
        (tmp_path / "bad.tar").write_bytes(b"no tar")
        with pytest.raises(
            InputError, match=r"no image among 1 files: 1 shards damaged .*bad\.tar"
        ):
            find_images([str(tmp_path)])
        self.shard(tmp_path / "good.tar", ("a.jpg", b"a"))
        assert self.read(tmp_path) == ({"good.tar/a.jpg": b"a"}, {Reason.DAMAGED_SHARD: 1})

    def test_links_are_the_bytes_of_what_they_lead_to(self, tmp_path):
        path = self.shard(
            tmp_path / "s.tar",
            *(("blobs/17", b"seventeen"), ("a.jpg", b"a")),
            ("hard.jpg", tarfile.LNKTYPE, "blobs/17"),
            ("x/soft.jpg", tarfile.SYMTYPE, "../a.jpg"),
            ("x/early.jpg", tarfile.SYMTYPE, "late.jpg"),
            ("x/late.jpg", b"late"),
            ("chain.jpg", tarfile.SYMTYPE, "x/soft.jpg"),
            ("hard-to-soft.jpg", tarfile.LNKTYPE, "x/soft.jpg"),
        )
        assert self.read(path) == (
            {
                "s.tar/a.jpg": b"a",
                "s.tar/hard.jpg": b"seventeen",
                "s.tar/x/late.jpg": b"late",
                "s.tar/x/soft.jpg": b"a",
                "s.tar/x/early.jpg": b"late",
                "s.tar/chain.jpg": b"a",
                "s.tar/hard-to-soft.jpg": b"a",
            },
            {Reason.SUFFIX: 1, Reason.REPEATED: 4},
        )

    def test_links_that_lead_nowhere_are_counted(self, tmp_path):
        path = self.shard(
            tmp_path / "s.tar",
            ("a.jpg", b"a"),
            ("out.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("up.jpg", tarfile.SYMTYPE, "../../b.jpg"),
            ("one.jpg", tarfile.SYMTYPE, "two.jpg"),
            ("two.jpg", tarfile.SYMTYPE, "one.jpg"),
            ("hard.jpg", tarfile.LNKTYPE, "later.jpg"),
            ("notes.txt", tarfile.SYMTYPE, "nothing"),
        )
        assert self.read(path) == ({"s.tar/a.jpg": b"a"}, {Reason.MEMBER_LINK: 5, Reason.SUFFIX: 1})

    def test_the_last_of_one_name_counts(self, tmp_path):
        path = self.shard(
            tmp_path / "s.tar",
            *(("a.jpg", b"old"), ("was.jpg", tarfile.LNKTYPE, "a.jpg"), ("./a.jpg", b"new")),
        )
        assert self.read(path) == (
            {"s.tar/was.jpg": b"old", "s.tar/a.jpg": b"new"},
            {Reason.REPLACED_MEMBER: 1},
        )

    @pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_and_undecodable_names(self, tmp_path, kind):
        long = "folder/" * 40 + "ü" * 60 + ".jpg"
        with tarfile.open(tmp_path / "s.tar", "w", format=kind) as shard:
            for name in (long, os.fsdecode("Größe.jpg".encode("latin-1"))):
                member = tarfile.TarInfo(name)
                member.size = 3
                shard.addfile(member, io.BytesIO(b"123"))
        found = {f"s.tar/{long}": b"123", r"s.tar/Gr\xf6\xdfe.jpg": b"123"}
        assert self.read(tmp_path) == (found, {})

    def test_an_incomplete_one_gives_what_is_whole(self, tmp_path):
        path = self.shard(tmp_path / "s.tar", *((f"{i}.jpg", bytes([i]) * 700) for i in range(5)))
        whole = path.read_bytes()
        first = {f"s.tar/{i}.jpg": bytes([i]) * 700 for i in range(2)}
        for size, cut in ((3 * 1536 + 100, {}), (2 * 1536 + 600, {Reason.CUT_MEMBER: 1})):
            path.write_bytes(whole[:size])
            contents, counts = self.read(path)
            assert counts == {Reason.DAMAGED_SHARD: 1, **cut}
            assert contents.items() >= first.items()
            assert len(contents) == size // 1536
        path.write_bytes(whole[: 5 * 1536])
        contents, counts = self.read(path)
        assert (len(contents), counts) == (5, {Reason.DAMAGED_SHARD: 1})

    def test_damage_within_is_told(self, tmp_path):
        path = self.shard(tmp_path / "s.tar", *((f"{i}.jpg", b"x" * 700) for i in range(5)))
        data = bytearray(path.read_bytes())
        data[3 * 1536 + 3] ^= 1  # of the fourth header
        path.write_bytes(data)
        table, report = find_images([str(path)])
        assert len(table) == 3
        assert report.lines() == [
            "1 shards damaged or incomplete: what is whole in them is listed: fetch or write them "
            "anew (s.tar: there is no valid header at byte 4,608)"
        ]

    def test_joined_ones_are_told(self, tmp_path):
        parts = [self.shard(tmp_path / f"{name}.tar", (f"{name}.jpg", b"x")) for name in "ab"]
        both = tmp_path / "both.tar"
        both.write_bytes(b"".join(part.read_bytes() for part in parts))
        table, report = find_images([str(both)])
        assert table["image_id"].to_pylist() == ["both.tar/a.jpg"]
        assert "were several tar files joined?" in report.lines()[0]

    def test_sparse_members_are_counted(self, tmp_path):
        # As GNU tar --sparse writes it: one piece of 512 bytes in a file of 1 MiB.
        member = tarfile.TarInfo("holes.jpg")
        member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        header[386:410] = b"%011o\0%011o\0" % (0, 512)
        header[483:495] = b"%011o\0" % (1 << 20)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        whole = self.shard(tmp_path / "s.tar", ("a.jpg", b"a")).read_bytes()
        (tmp_path / "s.tar").write_bytes(bytes(header) + b"x" * 512 + whole)
        assert self.read(tmp_path) == ({"s.tar/a.jpg": b"a"}, {Reason.SPARSE_MEMBER: 1})

    def test_compressed_ones_are_to_be_unpacked(self, tmp_path):
        tar = self.shard(tmp_path / "s.tar", ("a.jpg", b"a")).read_bytes()
        (tmp_path / "s.tar").write_bytes(gzip.compress(tar))  # by its content
        write(tmp_path, "t.tar.gz", "u.tgz", "v.zip", "b.jpg")
        assert listed(tmp_path) == (["b.jpg"], {Reason.ARCHIVE: 4})
        with pytest.raises(InputError, match=r"archives left out: .* unpack them"):
            find_images([str(tmp_path / "t.tar.gz")])


def test_the_order_of_reasons_and_their_examples_are_on_one_line_each(tmp_path):
    write(tmp_path, "a.jpg", "b\nc.txt", ".x\ty")
    _, report = find_images([str(tmp_path)])
    assert report.lines() == [
        r"1 files left out: their suffix is not that of an image (b\nc.txt)",
        "1 hidden files and folders, or an operating system's own, left out: name one to list it "
        r"(.x\ty)",
    ]
