"""Tests of iqa_core/storage/output_file.py: names of the wrong kind, and inputs that would be lost."""

from __future__ import annotations

import os

import pytest

from iqa_core.errors import InputError
from iqa_core.storage.output_file import check_output_file


@pytest.mark.parametrize(
    ("name", "suffix", "message"),
    [
        ("l.csv", ".json", r"^output \('l.csv'\) must be a .json file: let its name end in .json$"),
        (
            "i.jpg",
            ".html",
            r"^output \('i.jpg'\) must be an .html file: let its name end in .html$",
        ),
        ("m.parquet/", ".parquet", r"must be a .parquet file"),
        ("parquet", ".parquet", r"must be a .parquet file"),
        ("s3://box/m", ".parquet", r"must be a .parquet file"),
    ],
)
def test_another_suffix_is_refused(name, suffix, message):
    with pytest.raises(InputError, match=message):
        check_output_file("output", name, suffix)


def test_an_existing_file_of_the_suffix_may_be_replaced(tmp_path):
    (tmp_path / "m.parquet").write_bytes(b"earlier")
    (tmp_path / "other.parquet").write_bytes(b"an input")
    inputs = [str(tmp_path / "other.parquet"), str(tmp_path), "gone.csv", "*.jpg", None]
    check_output_file("output", str(tmp_path / "m.parquet"), ".parquet", inputs)


def test_an_input_is_refused_under_each_of_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "m.parquet"
    source.write_bytes(b"an input")
    (tmp_path / "link.parquet").symlink_to(source)
    os.link(source, tmp_path / "hard.parquet")
    for given in ["m.parquet", "./m.parquet", str(source), f"file://{source}"]:
        for output in ["m.parquet", "link.parquet", "hard.parquet", f"file://{source}"]:
            with pytest.raises(InputError) as caught:
                check_output_file("output", output, ".parquet", ["gone.csv", given])
            assert caught.value.on_command_line() == (
                f"--output {output} must be another file than the input {given}: give another name, as the "
                "input would be lost"
            )
    assert source.read_bytes() == b"an input"


def test_inputs_on_other_filesystems_are_compared_by_name():
    check_output_file("output", "memory://box/a.parquet", ".parquet", ["memory://box/b.parquet"])
    check_output_file("output", "memory://box/a.parquet", ".parquet", ["/box/a.parquet"])
    with pytest.raises(InputError, match=r"another file than the input memory://box/a.parquet"):
        check_output_file(
            "output", "memory://box/a.parquet", ".parquet", ["memory://box/a.parquet"]
        )
