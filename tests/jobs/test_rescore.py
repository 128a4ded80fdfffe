"""Tests of jobs/rescore.py and jobs/scoring/rescore.py; no Ray is started."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.clip.embedded import lightest_towers
from iqa_core.columns import EMBEDDING
from iqa_core.evaluation.calibration import Calibration, IsotonicFit
from iqa_core.evaluation.calibration_file import CalibrationFile, calibration_columns
from iqa_core.prompts.pairs import load_pairs
from iqa_core.scoring.columns import score_columns
from iqa_core.scoring.features import encode_prompts
from iqa_core.tables.feature_cache import FeatureCache, feature_column, features_of
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.reasons import REASONS
from iqa_core.tables.schema import output_schema
from iqa_core.tables.sink import SinkWithColumns
from iqa_core.training.split import check_teacher
from jobs import rescore, score
from jobs.cli import main

ROOT = Path(__file__).parents[2]
VERSION_0_1 = ROOT / "tests/data/v0.1"


def test_a_feature_cache_that_was_changed_is_rescored_without_its_broken_rows(tmp_path, capsys):
    """With a cache as `iqa embed` leaves it, whose file another program has written again."""
    towers = lightest_towers("tiny", "model")  # as the command has them, to the last bit
    good = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    good /= np.linalg.norm(good, axis=1, keepdims=True)
    broken = [np.zeros(128), np.full(128, np.nan), np.full(128, np.inf)]
    features = np.concatenate([good, np.stack(broken)]).astype(np.float16)
    folder = tmp_path / "features"
    (folder / "_run").mkdir(parents=True)
    made_by = {"model": "tiny", "weights": towers.digest}
    (folder / "_run/fingerprint.json").write_text(json.dumps(made_by))
    plan = {"manifest": "m", "files": [{"name": "m", "size": 1, "row_groups": [6]}]}
    (folder / "_run/plan.json").write_text(json.dumps(plan))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), 128)
    table = pa.table(
        {
            "manifest_file": ["m"] * 6,
            "manifest_row": pa.array(range(6), pa.int64()),
            "image_id": pa.nulls(6),
            "uri": ["x"] * 6,
            "status": ["ok"] * 6,
            "error": pa.nulls(6, pa.string()),
            "width": pa.array([224] * 6, pa.int32()),
            "height": pa.array([224] * 6, pa.int32()),
            EMBEDDING: flat,
        }
    )
    pq.write_table(table, folder / "part-0.parquet")
    np.testing.assert_array_equal(features_of(table), features.astype(np.float32))
    options = ["--features", str(folder), "--output", str(tmp_path / "o"), "--pairs", "clip-iqa"]
    assert main(["score", *options]) == 3
    assert "3 of 6 rows could not be scored" in capsys.readouterr().out
    [part] = Path(tmp_path / "o").glob("part-*.parquet")
    scored = pq.read_table(part)
    assert scored.column("status").to_pylist() == ["ok"] * 3 + ["model_error"] * 3
    assert scored.column("score").is_null().to_pylist() == [False] * 3 + [True] * 3
    prompts = encode_prompts(towers, load_pairs("clip-iqa"))
    expected = score_columns(features[:3], prompts)["score"]
    assert scored.column("score").to_pylist()[:3] == expected.to_pylist()


def write_features(folder, *, extra=(), kept=None, **columns):
    """Write 4 rows as `iqa score --embeddings` does, with the given values of some columns."""
    folder.mkdir(exist_ok=True)
    given = {"uri": [f"{row}.jpg" for row in range(4)], **(kept or {})}
    pq.write_table(pa.table(given), folder / "m.parquet")
    manifest = open_manifest(str(folder / "m.parquet"), tuple(kept or ()))
    towers = lightest_towers("tiny", "model")
    prompts = encode_prompts(towers, load_pairs("clip-iqa"))
    schema = output_schema(manifest, tuple(kept or ()), pairs=prompts.names, embedding=128)
    features = np.random.default_rng(0).normal(size=(4, 128)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    statuses = columns.get("status", ["ok"] * 4)
    features[[status != "ok" for status in statuses]] = np.nan
    rows = {
        **score_columns(features, prompts),
        "manifest_file": ["m.parquet"] * 4,
        "manifest_row": pa.array(range(4), pa.int64()),
        "status": statuses,
        "embedding": feature_column(features),
        **given,
        **columns,
    }
    table = pa.table({f.name: rows.get(f.name, pa.nulls(4, f.type)) for f in schema}).cast(schema)
    made_by = {"model": "tiny", "weights": towers.digest}
    output = SinkWithColumns(Output(str(folder / "features"), manifest, made_by), extra)
    with output.start({}):
        output.write(table)
    return str(folder / "features")


def rows_of(folder):
    tables = [pq.read_table(path) for path in sorted(Path(folder).glob("part-*.parquet"))]
    return pa.concat_tables(tables).sort_by("manifest_row")


def test_columns_of_other_scores_are_not_carried(tmp_path, capsys):
    """Those of --reasons and --calibration follow from the prompts of the run that made the features."""
    curve = IsotonicFit((0.0, 1.0), (1.0, 5.0))
    mos = Calibration(curve, "isotonic", 0.2, 0.9, {}, 1.0, 9, (1.0, 5.0), True)
    made = [*REASONS, *calibration_columns(CalibrationFile(mos, "label", {}))]
    features = write_features(tmp_path, extra=made, kept={"source": list("abcd")})
    assert rows_of(features).schema.names[-6:] == ["source", *(column.name for column in made)]
    check_teacher(FeatureCache(features), "column:mos")  # `iqa train` may learn from them
    words = ["rescore", "--features", features, "--pairs", "attributes", "--output"]
    assert main([*words, str(tmp_path / "plain")]) == 0
    assert rows_of(tmp_path / "plain").schema.names[-3:] == ["width", "height", "source"]
    assert main([*words, str(tmp_path / "reasons"), "--reasons"]) == 0
    reasons = rows_of(tmp_path / "reasons")
    assert reasons.schema.names[-3:] == ["source", "worst_pair", "spread"]
    assert set(reasons["worst_pair"].to_pylist()) <= set(reasons["scores"].type.names)
    assert main([*words, str(tmp_path / "kept"), "--keep", "mos"]) == 1
    assert "--keep mos must be a column that the features carry (source)" in capsys.readouterr().err


def test_a_kept_column_may_have_the_name_of_a_computed_one(tmp_path):
    labels = {"mos": [1.0, 2.0, 3.0, 4.0], "spread": [1, 2, 3, 4]}
    features = write_features(tmp_path, kept=labels)
    assert main(["rescore", "--features", features, "--output", str(tmp_path / "o")]) == 0
    assert {name: rows_of(tmp_path / "o")[name].to_pylist() for name in labels} == labels


def test_a_column_that_had_a_name_before_it_was_ours_is_left_out(tmp_path, capsys):
    features = write_features(tmp_path)
    [part] = Path(features).glob("part-*.parquet")
    table = pq.ParquetFile(part).read().append_column("descriptor", pa.array(list("abcd")))
    pq.write_table(table, part)
    assert main(["rescore", "--features", features, "--output", str(tmp_path / "o")]) == 0
    assert "column descriptor is not of `iqa embed`, and is left out" in capsys.readouterr().err
    found = rows_of(tmp_path / "o")
    assert "descriptor" not in found.schema.names
    assert found["score"].null_count == 0


def test_rows_that_were_repaired_since_are_scored_again(tmp_path, capsys):
    """The part files of the features are replaced, as `iqa embed --retry-errors timeout` does it."""
    whole = write_features(tmp_path / "whole")
    failed = {"status": ["ok", "timeout", "ok", "not_found"]}
    features = write_features(tmp_path / "f", **failed)
    words = ["rescore", "--features", features, "--max-error-rate", "1"]
    words += ["--pairs", "attributes", "--output", str(tmp_path / "o")]
    assert main(words) == 0
    assert rows_of(tmp_path / "o")["status"].to_pylist() == failed["status"]
    capsys.readouterr()
    assert main(words) == 0
    assert "nothing to do: all 4 rows" in capsys.readouterr().out
    [part] = Path(features).glob("part-*.parquet")
    part.unlink()
    (tmp_path / "f/features/_run/fingerprint.json").unlink()
    write_features(tmp_path / "f", status=["ok", "ok", "ok", "not_found"])
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "1 rows that had failed are ok in --features: scored again\n2 rows to do" in said
    assert "4 rows in, 4 rows out: none missing, none twice" in said
    found = rows_of(tmp_path / "o")
    assert found["status"].to_pylist() == ["ok", "ok", "ok", "not_found"]
    assert main(["rescore", "--features", whole, *words[3:-1], str(tmp_path / "all")]) == 0
    scores = rows_of(tmp_path / "all")["score"].to_pylist()
    assert found["score"].to_pylist() == [*scores[:3], None]
    capsys.readouterr()
    assert main(words) == 0
    assert "nothing to do: all 4 rows" in capsys.readouterr().out


def options_of(command):
    return {field.name: field for field in dataclasses.fields(command.Config)}


def flag(name):
    return "--" + name.replace("_", "-")


def test_it_has_the_options_that_it_obeys():
    assert set(options_of(rescore)) == {
        *("features", "output", "keep", "pairs", "prompts", "logit_scale"),
        *("max_error_rate", "lease_seconds"),
        *("features_column", "metadata", "uri_column", "model", "normalise", "check_images"),
        *("calibration", "reasons"),
    }


@pytest.mark.parametrize("command", ["score", "rescore"])
@pytest.mark.parametrize(
    "name", sorted(set(options_of(score)) - set(options_of(rescore)) - {"manifest"})
)
def test_options_about_images_are_wrong_usage(name, command, tmp_path, capsys):
    words = [command, "--features", str(VERSION_0_1 / "features"), "--output", str(tmp_path / "o")]
    default = options_of(score)[name].default
    value = [] if isinstance(default, bool) else [str(default or 1)]
    with pytest.raises(SystemExit) as ended:
        main([*words, flag(name), *value])
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"iqa: unrecognized arguments: {flag(name)}")
    assert not (tmp_path / "o").exists()


def test_pairs_and_prompts_exclude_each_other(tmp_path, capsys):
    words = [
        "rescore",
        "--features",
        str(VERSION_0_1 / "features"),
        "--output",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--pairs", "quality", "--prompts", str(VERSION_0_1 / "prompts.safetensors")])
    assert ended.value.code == 2
    assert "argument --prompts: not allowed with argument --pairs" in capsys.readouterr().err


def test_the_alias_says_so_and_does_the_same(tmp_path, capsys):
    features = str(VERSION_0_1 / "features")
    words = ["--keep", "mos", "--max-error-rate", "1", "--output"]
    assert main(["rescore", "--features", features, *words, str(tmp_path / "command")]) == 0
    assert "alias" not in capsys.readouterr().err
    assert main(["score", f"--features={features}", *words, str(tmp_path / "alias")]) == 0
    assert "iqa score --features is an alias of iqa rescore --features\n" in capsys.readouterr().err
    command, alias = (
        pq.read_table(list((tmp_path / name).glob("part-*.parquet")))
        for name in ("command", "alias")
    )
    assert command.column("score").null_count < len(command) == 28
    assert command.equals(alias)


@pytest.mark.slow
def test_it_needs_no_ray(tmp_path):
    words = [
        "rescore",
        "--features",
        str(VERSION_0_1 / "features"),
        "--output",
        str(tmp_path / "o"),
    ]
    code = f"import sys; from jobs.cli import main; main({words!r}); print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "28 rows in, 28 rows out" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
