"""Tests of where commands write: no other kind of file, no input, nothing that a manifest would take in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.duplicates.content_hash import content_hash
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema
from jobs.cli import main


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["manifest", "{}", "--output", "{}"], "a .parquet file"),
        (["calibrate", "--scores", "s", "--labels", "{}", "--output", "{}"], "a .json file"),
        (["report", "--scores", "s", "--output", "{}"], "an .html file"),
        (["duplicates", "--scores", "s", "--output", "{}"], "a .parquet file"),
        (["select", "--scores", "s", "--output", "{}"], "a .parquet file"),
        (["select", "--scores", "s", "--output", "m.parquet", "--sheet", "{}"], "an .html file"),
        (["status", "--scores", "s", "--html", "{}"], "an .html file"),
        (["evaluate", "--scores", "s", "--figure", "{}"], "an .svg file"),
        (["train", "--features", "s", "--output", "{}"], "a .safetensors file"),
    ],
)
@pytest.mark.parametrize("name", ["pic.jpg", "labels.csv", "m.PARQUET"])
def test_files_of_other_kinds_are_left_as_they_are(
    words, kind, name, tmp_path, monkeypatch, capsys
):
    """The scores do not exist: the name is refused before anything is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"of a human")
    assert main([word.format(name) for word in words]) == 1
    option = words[-2]
    message = f"{option} {name} must be {kind}: let its name end in {kind.split()[1]}"
    assert message in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"of a human"


def test_a_page_does_not_replace_the_manifest_that_it_reads(tmp_path, monkeypatch, capsys):
    """A manifest that is named may have any suffix."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"uri": ["a.png"]}), tmp_path / "m.html")
    before = (tmp_path / "m.html").read_bytes()
    words = ["report", "--scores", "s", "--manifest", "m.html", "--output", "./m.html"]
    assert main(words) == 1
    message = "--output ./m.html must be another file than the input m.html: give another name"
    assert message in capsys.readouterr().err
    assert (tmp_path / "m.html").read_bytes() == before


def test_a_manifest_is_made_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for count in (1, 2):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"photos/{count}.png")
        assert main(["manifest", "photos", "--output", "m.parquet"]) == 0
        assert pq.read_metadata("m.parquet").num_rows == count


@pytest.fixture
def scores_of(tmp_path, monkeypatch):
    """Scores with hashes of the manifest files in `m`, scored as a folder, a file or a glob."""
    monkeypatch.chdir(tmp_path)

    def scored(manifest):
        uris = [f"{place}.png" for place in range(3)]
        (tmp_path / "m").mkdir()
        pq.write_table(pa.table({"uri": uris}), tmp_path / "m/0.parquet")
        opened = open_manifest(manifest)
        schema = output_schema(opened, (), pairs=("quality",), hashes=True)
        row = {name: None for name in schema.names}
        row |= {"manifest_file": "0.parquet", "status": "ok", "width": 9, "height": 9, "score": 0.5}
        row |= {"scores": {"quality": 0.5}, "margins": {"quality": 0.5}}
        rows = [
            row | {"manifest_row": place, "uri": uris[place], "content_hash": content_hash(content)}
            for place, content in enumerate([b"a", b"b", b"a"])
        ]
        output = Output(str(tmp_path / "o"), opened, {"kind": "test"})
        with output.start({}):
            output.write(pa.Table.from_pylist(rows, schema))
            output.finish({})
        return opened

    return scored


COMMANDS = {
    "select": ["select"],
    "parquet": ["export", "--to", "parquet"],
    "csv": ["export", "--to", "csv"],
    "duplicates": ["duplicates", "--no-near"],
}


@pytest.mark.parametrize(
    ("manifest", "command", "output", "refusal"),
    [
        ("m", "select", "m/best.parquet", "outside of the manifest's folder"),
        ("m", "select", "m/deep/best.parquet", "outside of the manifest's folder"),
        ("m", "select", "link/best.parquet", "outside of the manifest's folder"),
        ("m", "parquet", "m/all.parquet", "outside of the manifest's folder"),
        ("m", "parquet", "m/all", "outside of the manifest's folder"),
        ("m", "duplicates", "m/copies.parquet", "outside of the manifest's folder"),
        ("m/*.parquet", "duplicates", "m/copies.parquet", "outside of what the manifest"),
        ("m/*.parquet", "parquet", "m/all", None),
        ("m/0*.parquet", "select", "m/best.parquet", None),
        ("m/0.parquet", "select", "m/best.parquet", None),
        ("m/0.parquet", "duplicates", "m/copies.parquet", None),
        ("m", "csv", "m/all.csv", None),  # no manifest's reader takes it
        ("m", "parquet", "m/_exports/all.parquet", None),
        ("m", "select", "m-best.parquet", None),
    ],
)
def test_a_manifest_gets_no_rows_by_what_is_made_of_its_scores(
    scores_of, manifest, command, output, refusal, tmp_path, capsys
):
    before = scores_of(manifest)
    (tmp_path / "link").symlink_to("m")
    words = [*COMMANDS[command], "--scores", "o", "--output", output]
    assert main(words) == (1 if refusal else 0)
    if refusal:
        assert f"--output {output} must be {refusal}" in capsys.readouterr().err
    assert (tmp_path / output).exists() is (refusal is None)
    assert open_manifest(manifest).rows == before.rows == 3
    assert main(["verify", "--scores", "o", "--manifest", manifest]) == 0


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("select", "o/part-best.parquet"),
        ("select", "link/part-best.parquet"),
        ("select --rows-per-file 2", "o/part-best.parquet/"),
        ("parquet", "o/part-all.parquet"),
        ("csv", "o/part-all.parquet"),
        ("duplicates", "o/part-copies.parquet"),
        ("duplicates", "./m/../o/part-copies.parquet"),
        ("manifest", "o/part-list.parquet"),
    ],
)
def test_scores_get_no_part_file_by_what_is_made_of_them(
    scores_of, command, output, tmp_path, capsys
):
    scores_of("m/0.parquet")
    (tmp_path / "link").symlink_to("o")
    name, *more = command.split()
    given = ["manifest", "m"] if name == "manifest" else [*COMMANDS[name], "--scores", "o"]
    words = [*given, *more, "--output"]
    before = sorted((tmp_path / "o").iterdir())
    assert main([*words, output]) == 1
    said = capsys.readouterr().err
    assert f"--output {output} must be a name other than part-*.parquet within an output" in said
    assert sorted((tmp_path / "o").iterdir()) == before
    if name != "manifest":  # which lists no Parquet files
        assert main([*words, output.replace("part-", "")]) == 0
    assert main(["verify", "--scores", "o", "--manifest", "m/0.parquet"]) == 0
    assert main(["select", "--scores", "o", "--output", "part-elsewhere.parquet"]) == 0


def test_scores_without_a_record_of_their_run_get_no_part_file(scores_of, tmp_path, capsys):
    scores_of("m/0.parquet")
    (tmp_path / "o/_run").rename(tmp_path / "lost")
    words = [*COMMANDS["duplicates"], "--scores", "o", "--output", "o/part-copies.parquet"]
    assert main(words) == 1
    assert "must be a name other than part-*.parquet" in capsys.readouterr().err


def test_a_moved_manifest_gets_no_rows_either(scores_of, tmp_path, capsys):
    scores_of("m")
    (tmp_path / "m").rename(tmp_path / "moved")
    words = ["select", "--scores", "o", "--manifest", "moved", "--output", "moved/best.parquet"]
    assert main([*words, "--dry-run", "--sheet-images", "0"]) == 0  # writes nothing
    assert main(words) == 1
    assert "must be outside of the manifest's folder moved" in capsys.readouterr().err


def test_without_a_plan_every_place_is_allowed(scores_of, tmp_path):
    scores_of("m")
    (tmp_path / "o/_run/plan.json").unlink()
    assert main([*COMMANDS["duplicates"], "--scores", "o", "--output", "m/copies.parquet"]) == 0


def test_a_tilde_that_the_shell_left_is_the_home_folder(scores_of, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    scores_of("m")
    words = ["select", "--scores=~/o", "--output=~/best.parquet", "--where", "width > ~8 % 100"]
    assert main(words) == 0
    assert open_manifest(str(tmp_path / "best.parquet")).rows == 3
    assert not (tmp_path / "~").exists()
