"""`--shard K/N`: two drivers after each other on Ray, and the union verified."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli import main

ROWS = 10


@pytest.fixture
def manifest(tmp_path, photos):
    folder = tmp_path / "m"
    folder.mkdir()
    for number in range(ROWS):
        photo = list(photos.values())[number % len(photos)]
        Image.fromarray(photo[number : number + 200, :200]).save(folder / f"{number}.jpg")
    for name, numbers in (("a", range(3)), ("b", range(3, ROWS))):
        table = pa.table({"uri": [f"{number}.jpg" for number in numbers]})
        pq.write_table(table, folder / f"{name}.parquet")
    return str(folder)


def score(manifest, output, *words):
    return main(["score", "--manifest", manifest, "--output", str(output), *words])


@pytest.mark.ray
def test_two_shards_fill_one_output(ray_cluster, manifest, tmp_path, capsys):
    output = tmp_path / "o"
    verify = ["verify", "--scores", str(output), "--manifest", manifest]
    assert score(manifest, output, "--shard", "1/2") == 0
    out = capsys.readouterr().out
    assert "shard 1/2: 5 rows to do; tiny in fp32" in out
    assert "shard 1/2: 5 rows in, 5 rows out: none missing, none twice" in out
    assert main(verify) == 1
    out = capsys.readouterr().out
    assert "10 rows in, 5 rows out: 5 missing (such as a.parquet:0" in out
    assert "shards by their last summaries: shard 1/2 complete" in out
    assert score(manifest, output, "--shard", "1/2") == 0
    assert "nothing to do: all 5 rows of shard 1/2 are in" in capsys.readouterr().out
    assert score(manifest, output, "--shard", "0/2") == 0
    capsys.readouterr()
    assert main([*verify, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["found"], found["twice"], found["parts"]) == (10, 0, 2)
    assert found["shards"] == {"shard 0/2": True, "shard 1/2": True}
    assert score(manifest, output) == 0
    assert "nothing to do: all 10 rows are in" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["2/2", "1", "x/y"])
def test_what_is_no_shard_is_one_line(text, manifest, tmp_path, capsys):
    assert score(manifest, tmp_path / "o", "--shard", text) != 0
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"--shard {text} must be K/N with 0 <= K < N, counted from 0" in line
    assert not (tmp_path / "o").exists()
