"""Tests of jobs/plan.py and jobs/planning/measure.py: what is measured, printed and never written."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli import main
from jobs.plan import Config, command_line, describe, too_many_errors
from jobs.planning.forecast import Fleet, forecast
from jobs.planning.measure import Measured
from jobs.prices import Prices
from jobs.scoring.meter import Steady

STEADY = Steady(
    images_per_second=100.0,
    seconds=10.0,
    rows=1000.0,
    devices=2,
    stage_seconds={"fetch": 12.0, "decode": 3.0, "model": 5.0},
    driver_seconds=0.2,
    blocks=20.0,
)
FLEET = Fleet(cpus=2.0, gpus=0.0, actors=2, actor_cpus=1.0, actor_gpus=0.0, block_rows=200)


def measured(**changes):
    values = {
        "left": 30_000,
        "drawn": 1000,
        "statuses": {"ok": 990, "empty": 2},
        "steady": STEADY,
        "is_rough": False,
        "start_up": 20.0,
        "fleet": FLEET,
        "precision": "fp32",
    }
    return Measured(**(values | changes))


def lines(prices=None, **changes):
    found = measured(**changes)
    return describe(found, forecast(found.steady, found.fleet, found.left, found.start_up, prices))


def test_in_lines():
    assert lines(Prices(cpu=0.05)) == [
        "992 of 1,000 sampled rows: empty 2, ok 990",
        "ms an image: fetch 12.0, decode 3.0, model 5.0; bottleneck: fetch",
        "100.0 images/s in steady state by 2 CPU actors, after 20 s of start-up",
        "30,000 rows to do: 5:20 min",
        "cost: 0.28 per million images, 0.0089 in total",
        "actors wait for images to arrive: more of them on the same CPUs would help",
        "driver: 50.0 ms of CPU for 1,000 images beside writing, so at most 20,000 images/s",
    ]


def test_what_the_sample_does_not_say():
    large = Fleet(700.0, 0.0, 700, 1.0, 0.0, 200)
    text = "\n".join(lines(is_rough=True, fleet=large))
    assert "too few blocks for a steady state" in text
    assert "only 2 of 700 actors took part: more --sample" in text
    assert "more than one driver takes: run 3 of them with --shard 0/3 to 2/3" in text


def test_decoders_for_a_gpu():
    gpus = Fleet(8.0, 1.0, 1, 1.0, 1.0, 2000)
    steady = Steady(90.0, 10.0, 900.0, 1, {"fetch": 0.0, "decode": 90.0, "model": 0.9}, 0.0, 9.0)
    assert "each GPU needs 100.0 CPUs to decode for it" in lines(fleet=gpus, steady=steady)


def test_half_precision_is_advised_where_the_model_is_slow_and_it_is_fast():
    slow = replace(STEADY, stage_seconds={"fetch": 1.0, "decode": 3.0, "model": 16.0})
    assert any("--precision bf16" in line for line in lines(steady=slow, bf16_is_faster=True))
    for options in ({"steady": slow}, {"bf16_is_faster": True}):
        assert not any("bf16" in line for line in lines(**options))


def test_more_failed_rows_than_the_run_would_allow():
    statuses = {"ok": 90, "empty": 4, "timeout": 6}
    assert too_many_errors(statuses, 0.1) is None
    line = too_many_errors(statuses, 0.05)
    assert line.startswith(
        "10.0% of the sample could not be scored, more than --max-error-rate 0.05"
    )


def test_the_command_of_the_run():
    config = Config(
        manifest="a folder/m.parquet",
        output="s3://bucket/o",
        keep=("mos", "source"),
        skip_damaged=True,
        timeout=10.0,
        sample=5,
        cpu_price=1.0,
    )
    command = command_line(config, {"cpus_per_actor": 0.4})
    assert shlex.split(command)[:2] == ["iqa", "score"]
    assert set(command.split(" --")[1:]) == {
        "manifest 'a folder/m.parquet'",
        "output s3://bucket/o",
        "keep mos source",
        "skip-damaged",
        "timeout 10",
        "cpus-per-actor 0.4",
        "cpu-price 1",
    }


def test_numbers_keep_their_digits():
    config = Config(manifest="m", logit_scale=123.4567891, max_error_rate=1e-7)
    command = command_line(config, {})
    assert "--logit-scale 123.4567891" in command
    assert "--max-error-rate 1e-07" in command


def test_nodes_that_are_yet_to_come():
    found = lines(nodes=1, most_actors=8)
    assert (
        "for the nodes that are here now, 1; the run asks for 8 actors, and more nodes make it faster"
        in found
    )


def test_the_command_has_no_secrets_and_names_what_is_missing():
    config = Config(manifest="https://user:secret@host/m.parquet")
    command = command_line(config, {})
    assert "secret" not in command
    assert command.endswith(" --output OUTPUT")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--sample", "0"], "--sample 0 must be at least 1"),
        (["--cpu-price", "-1"], "--cpu-price -1.0 must be at least 0"),
        (["--measure-seconds", "0"], "--measure-seconds 0.0 must be above 0"),
        (["--pairs", "nothing"], "nothing"),
        ([], "gone.parquet"),
    ],
)
def test_wrong_usage_in_one_line(tmp_path, capsys, words, line):
    assert main(["plan", "--manifest", str(tmp_path / "gone.parquet"), *words]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("iqa plan: ")
    assert line in errors
    assert len(errors.splitlines()) == 1


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, photos):
    """A manifest of 400 rows: ten images, and every 20th row without one."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(10):
        photo = list(photos.values())[number % len(photos)]
        Image.fromarray(photo[:160, :160]).save(folder / f"{number}.jpg")
    uris = ["gone.jpg" if row % 20 == 7 else f"{row % 10}.jpg" for row in range(400)]
    pq.write_table(pa.table({"uri": uris}), folder / "m.parquet", row_group_size=100)
    return folder / "m.parquet"


@pytest.mark.ray
def test_a_sample_is_measured_and_nothing_is_written(ray_cluster, manifest, capsys):
    before = sorted(manifest.parent.rglob("*"))
    words = ["plan", "--manifest", str(manifest), "--sample", "320", "--json"]
    assert main([*words, "--num-actors", "2", "--cpu-price", "3.6"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(manifest.parent.rglob("*")) == before
    measured, forecast = found["measured"], found["forecast"]
    assert measured["drawn"] == 320
    assert set(measured["statuses"]) == {"ok", "not_found"}
    assert sum(measured["statuses"].values()) <= 320
    assert measured["fleet"]["cpus"] == 3
    assert measured["fleet"]["actors"] == 2
    assert forecast["rows"] == 400
    rate = forecast["images_per_second"]
    assert forecast["seconds"] == pytest.approx(forecast["start_up"] + 400 / rate)
    assert forecast["cost"] == pytest.approx(3 * 0.001 * forecast["seconds"])
    # Both actors were at work: their busy seconds fill the time, as far as they are measured.
    busy = sum(measured["steady"]["stage_seconds"].values())
    assert 0.3 < busy / (2 * measured["steady"]["seconds"]) < 1.5
    assert found["command"].startswith("iqa score --manifest ")
    assert "--num-actors 2" in found["command"]


@pytest.mark.ray
def test_rows_of_the_output_are_done(ray_cluster, manifest, tmp_path, capsys):
    half = tmp_path / "half.parquet"
    table = pq.read_table(manifest).slice(0, 40)
    paths = [str(manifest.parent / uri) for uri in table.column("uri").to_pylist()]
    pq.write_table(pa.table({"uri": paths}), half)
    words = ["--manifest", str(half), "--output", str(tmp_path / "o"), "--embeddings", "--reasons"]
    assert main(["score", *words]) == 0
    capsys.readouterr()
    assert main(["plan", *words]) == 0
    assert capsys.readouterr().out.startswith("nothing to do: all rows are in ")
    assert main(["plan", *words, "--retry-errors", "not_found"]) == 0
    assert "\n2 rows to do: " in capsys.readouterr().out
    assert main(["plan", *words, "--decode", "exact"]) == 1
    assert "decode" in capsys.readouterr().err


@pytest.mark.ray
def test_a_sample_without_an_image(ray_cluster, tmp_path, capsys):
    pq.write_table(pa.table({"uri": ["gone.jpg"] * 40}), tmp_path / "m.parquet")
    assert main(["plan", "--manifest", str(tmp_path / "m.parquet")]) == 1
    errors = capsys.readouterr().err.splitlines()[-1]
    assert "none of 40 sampled images could be scored (not_found 40)" in errors
