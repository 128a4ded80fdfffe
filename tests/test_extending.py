"""docs/extending.md, followed: its package is installed, its changes are made to a copy of the tree.

The package brings a tower, a loss, a column and a sink; no file of the project is touched for them.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from iqa_core.clip.load import load_towers
from iqa_core.columns import EMBEDDING
from iqa_core.errors import InputError
from iqa_core.losses.table import find_loss, make_loss
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS
from iqa_core.scoring.features import encode_prompts
from iqa_core.tables.feature_cache import feature_column
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema
from iqa_core.training.loop import train
from iqa_core.training.settings import Settings
from jobs.cli import main
from tests.iqa_core.training.rows import WIDTH, write_cache, written

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
#: The page's files by the path in their first line.
FILES = {
    block.partition("\n")[0].removeprefix("# "): block
    for language, block in BLOCKS
    if language in ("python", "toml")
}
DIFFS = [block for language, block in BLOCKS if language == "diff"]
COMMANDS = [line for language, block in BLOCKS if not language for line in block.splitlines()]
#: Grey values of the images; all pixels of an image are equal, so that scores follow by hand.
GREYS = [0, 32, 64, 128, 192, 255]
SIZE = (60, 40)
MEGAPIXELS = 60 * 40 / 1e6


def command(start):
    """Return the words of the page's command that starts like this."""
    (line,) = [line for line in COMMANDS if line.startswith(start)]
    return shlex.split(line)


def expected_scores():
    """Return the scores of the images by the page's tower, whose logit scale is 10."""
    angle = np.array(GREYS) / 255 * np.pi / 2
    return 1 / (1 + np.exp(-10 * (np.sin(angle) - np.cos(angle))))


def run(*words, cwd, path):
    """Run a command with a PYTHONPATH; return what it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    words = [str(word) for word in words]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed packages: the page's, and this tree under its installed name."""
    source = tmp_path_factory.mktemp("source")
    site = tmp_path_factory.mktemp("site")
    (source / "my_package").mkdir()
    (source / "my_package/__init__.py").touch()
    for name in FILES:
        if name == "pyproject.toml" or name.startswith("my_package/"):
            (source / name).write_text(FILES[name])
    words = ("install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile")
    run(sys.executable, "-m", "pip", *words, "--target", site, source, cwd=source, path=[])
    (site / "iqa_jobs").symlink_to(ROOT / "jobs")
    return site


@pytest.fixture
def installed(site, monkeypatch):
    """The package, installed for this process."""
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("my_package", "iqa_jobs"):
            del sys.modules[name]


@pytest.fixture
def home(tmp_path):
    """A folder with images, their manifest and the page's prompt set, as the page's commands have it."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    for number, grey in enumerate(GREYS):
        Image.new("RGB", SIZE, (grey,) * 3).save(home / f"photos/{number}.png")
    (home / "light.toml").write_text(FILES["light.toml"])
    with chdir(home):
        assert main(["manifest", "photos", "--output", "photos.parquet"]) == 0
    return home


@pytest.fixture
def features(installed, home):
    """What the page's tower gives for these images, as `iqa score --embeddings` leaves it in `scores`."""
    image = load_towers("mine:10").image.to_device("cpu")
    pixels = np.stack([np.full((32, 32, 3), grey, np.uint8) for grey in GREYS])
    manifest = open_manifest(str(home / "photos.parquet"))
    schema = output_schema(manifest, (), embedding=image.width)
    uris = pq.read_table(home / "photos.parquet")["uri"].to_pylist()
    rows = [
        {"manifest_file": "photos.parquet", "manifest_row": number, "uri": uri, "status": "ok"}
        | {"width": SIZE[0], "height": SIZE[1]}
        for number, uri in enumerate(uris)
    ]
    table = pa.Table.from_pylist(rows, schema=schema)
    place = schema.get_field_index(EMBEDDING)
    table = table.set_column(place, EMBEDDING, feature_column(image.encode(pixels).numpy()))
    fingerprint = {"kind": "embed", "model": "mine:10", "weights": image.digest}
    output = Output(str(home / "scores"), manifest, fingerprint)
    with output.start({}):
        output.write(table)
    return home


def scored(folder):
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    return pa.concat_tables(parts).sort_by("manifest_row")


def test_every_block_of_the_page_is_followed():
    own = {"encoder", "loss", "score", "memory"}
    wanted = {f"my_package/{name}.py" for name in own} | {"pyproject.toml", "light.toml"}
    wanted |= {"example.py", "iqa_core/releases/stars.py", "jobs/count.py"}
    assert set(FILES) == wanted
    assert len(DIFFS) == 3
    assert [line.split()[1] for line in COMMANDS] == [
        *("score", "verify", "report", "embed", "train", "-m")
    ]


# The package ---------------------------------------------------------------------------------------


#: Runs modules as `python -m` does, one after the other, with one Ray for all of them.
DRIVER = """
import json, runpy, sys
import ray

ray.init(
    "local", num_cpus=3, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1"
)
for words in json.loads(sys.argv[1]):
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__")
    except SystemExit as error:
        if error.code:
            sys.exit(f"{words} ended with {error.code}")
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tower_a_column_and_a_sink_on_ray(site, home):
    program = FILES["example.py"].replace("iqa_jobs.rescore", "iqa_jobs.score")
    program = program.replace('features="scores"', 'manifest="photos.parquet", model="mine:10"')
    program += "import pyarrow.parquet as pq\npq.write_table(table, 'from-memory.parquet')\n"
    (home / "images_to_memory.py").write_text(program)
    wider = ["--scores", "with-megapixels"]
    words = [
        *(["iqa_jobs", *command(f"iqa {name}")[1:]] for name in ("score", "verify", "report")),
        command("python -m my_package.score")[2:],
        ["iqa_jobs", "verify", *wider, "--manifest", "photos.parquet"],
        ["iqa_jobs", "report", *wider, "--output", "wider.html"],
        ["images_to_memory"],
    ]
    said = run(sys.executable, "-c", DRIVER, json.dumps(words), cwd=home, path=[site, ROOT])
    assert said.count("6 rows in, 6 rows out: none missing, none twice") == 5
    assert said.count("6 rows, 6 scored, 0 not; 6 images shown") == 2
    table = scored(home / "scores")
    assert table["status"].to_pylist() == ["ok"] * len(GREYS)
    np.testing.assert_allclose(table["score"].to_numpy(), expected_scores(), atol=1e-5)
    assert table["embedding"].type.list_size == 2
    assert "mine:10" in (home / "report.html").read_text(encoding="utf-8")
    table = scored(home / "with-megapixels")
    assert table["megapixels"].to_pylist() == pytest.approx([MEGAPIXELS] * len(GREYS))
    np.testing.assert_allclose(table["score"].to_numpy(), expected_scores(), atol=1e-5)
    assert "megapixels" in (home / "wider.html").read_text(encoding="utf-8")
    in_memory = pq.read_table(home / "from-memory.parquet").sort_by("manifest_row")
    assert in_memory.equals(table)


@pytest.mark.slow
def test_a_column_is_added_without_ray(site, features):
    """The program of the page with `rescore` in the place of `score`, as the page says."""
    program = FILES["my_package/score.py"].replace("iqa_jobs.score", "iqa_jobs.rescore")
    (features / "program.py").write_text(program)
    words = ["--features", "scores", "--pairs", "light.toml", "--output", "rescored"]
    run(sys.executable, "program.py", *words, cwd=features, path=[site, ROOT])
    table = scored(features / "rescored")
    assert table["megapixels"].to_pylist() == pytest.approx([MEGAPIXELS] * len(GREYS))
    np.testing.assert_allclose(table["score"].to_numpy(), expected_scores(), atol=2e-3)
    fingerprint = json.loads((features / "rescored/_run/fingerprint.json").read_text())
    assert fingerprint["columns"][-1] == "megapixels: float"
    with chdir(features):
        assert main(["verify", "--scores", "rescored", "--manifest", "photos.parquet"]) == 0
        assert main(["report", "--scores", "rescored", "--output", "report.html"]) == 0
        assert "megapixels" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_program_s_wrong_arguments_are_one_line(site, home):
    program = FILES["my_package/score.py"].replace("iqa_jobs.score", "iqa_jobs.rescore")
    (home / "program.py").write_text(program)
    words = [sys.executable, "program.py", "--features", "nothing", "--output", "x"]
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    done = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("--features nothing holds no features")
    assert done.stderr.count("\n") == 1


def test_a_sink_in_memory_gets_the_rows(features, capsys):
    with chdir(features):
        names = {}
        exec(compile(FILES["example.py"], "example.py", "exec"), names)  # noqa: S102
        table = names["table"].sort_by("manifest_row")
        np.testing.assert_allclose(table["score"].to_numpy(), expected_scores(), atol=2e-3)
        assert table["megapixels"].to_pylist() == pytest.approx([MEGAPIXELS] * len(GREYS))
        assert "6 rows in, 6 rows out: none missing, none twice" in capsys.readouterr().out
        assert not (features / "light").exists()

        sink, rerun = names["MemorySink"], {"extra": [names["MEGAPIXELS"]]}
        assert names["run"](names["options"], open_sink=sink, **rerun) == 0
        assert "nothing to do: all 6 rows" in capsys.readouterr().out
        with pytest.raises(InputError, match="output light holds another run's rows"):
            names["run"](names["options"], open_sink=sink)

        # what is dropped is done again, and nothing else
        manifest = open_manifest("photos.parquet")
        stored, tables = names["STORE"]["light"]
        again = sink("light", manifest, stored, 30.0)
        lost = (
            tables[0]
            .slice(0, 2)
            .set_column(
                table.schema.get_field_index("status"),
                table.schema.field("status"),
                [["timeout"] * 2],
            )
        )
        tables[:] = [lost, tables[0].slice(2)]
        assert again.committed().statuses == {"timeout": 2, "ok": 4}
        assert again.drop(["timeout"]) == 2
        assert again.audit().missing == 2
        capsys.readouterr()
        assert names["run"](names["options"], open_sink=sink, **rerun) == 0
        assert "2 rows to do" in capsys.readouterr().out
        assert again.audit().passed


def test_a_loss_trains_two_steps(installed, tmp_path):
    words = command("iqa train")
    name = words[words.index("--loss") + 1]
    option, _, value = words[words.index("--loss-options") + 1].partition("=")
    assert find_loss(name).package == "my-package 1.0"
    assert dict(find_loss(name).defaults) == {"gap": 1.0}
    loss = make_loss(name, **{option: float(value)})
    # Pairs (0, 1), (0, 2), (2, 1) of differences 0.2, -1, 1.2: two of them lack 0.3 and 1.5.
    found = loss(torch.tensor([0.2, 0.0, 1.2]), torch.tensor([3.0, 1.0, 2.0]))
    assert found.item() == pytest.approx((0.3**2 + 1.5**2) / 3)

    towers = load_towers("tiny")
    pairs = NAMED_PAIRS["pyiqa"][:2]
    values = np.random.default_rng(0).normal(size=(80, WIDTH)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    rows = {"manifest_file": ["m.parquet"] * 80, "manifest_row": pa.array(range(80), pa.int64())}
    table = pa.table({**rows, "status": ["ok"] * 80, EMBEDDING: feature_column(values)})
    cache = write_cache(tmp_path / "cache", table)
    (tmp_path / "data").mkdir()
    data = written(cache, str(tmp_path / "data"), encode_prompts(towers, pairs), holdout=0.2)
    learner = PromptLearner(towers.text, pairs, context_length=2)
    before = learner.context.detach().clone()
    settings = Settings(
        loss=name, loss_options={option: float(value)}, list_size=16, steps=2, checkpoint_steps=1,
        logit_scale=towers.logit_scale,
    )  # fmt: skip
    contexts = []
    state = train(
        learner,
        towers.text,
        data,
        settings,
        on_check=lambda state: contexts.append(state.context.clone()),
    )
    assert state.step == 2
    assert [torch.equal(context[0], before) for context in contexts] == [True, False, False]
    assert all(0 < check["loss"] < np.inf for check in state.history[1:])


# The tree --------------------------------------------------------------------------------------------


def apply(diff, root):
    """Make the changes of one of the page's diffs, each of which fits one place only."""
    head, *hunks = re.split(r"^@@.*\n", diff, flags=re.MULTILINE)
    path = root / re.search(r"^\+\+\+ b/(.*)$", head, re.MULTILINE)[1]
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"{path} has {text.count(old)} times:\n{old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the tree with the page's release, prompt set and command."""
    clone = tmp_path_factory.mktemp("clone")
    ignore = shutil.ignore_patterns("__pycache__", "weights")
    for name in ("iqa_core", "jobs"):
        shutil.copytree(ROOT / name, clone / name, ignore=ignore)
    for name in ("tools/options_page.py", "docs/options.md", "pyproject.toml"):
        (clone / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    for name in ("iqa_core/releases/stars.py", "jobs/count.py"):
        (clone / name).write_text(FILES[name])
    for diff in DIFFS:
        apply(diff, clone)
    return clone


def test_a_release_is_recognised_and_read(clone, tmp_path):
    (tmp_path / "stars/images").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (tmp_path / "stars/images" / name).touch()
    (tmp_path / "stars/stars.csv").write_text("file,stars,part\na.png,5,train\nb.png,2,test\n")
    words = ("manifest", "stars", "--output", "m.parquet")
    said = run(sys.executable, "-m", "jobs", *words, cwd=tmp_path, path=[clone])
    assert "2 images of Stars" in said
    rows = pq.read_table(tmp_path / "m.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == ["a.png", "b.png"]
    assert [row["mos"] for row in rows] == [5.0, 2.0]
    assert [row["mos_normalised"] for row in rows] == [1.0, 0.25]
    assert [row["split"] for row in rows] == ["train", "test"]
    assert [(tmp_path / row["uri"]).is_file() for row in rows] == [True, True]


def test_a_command_runs(clone, features):
    words = ("count", "--scores", "scores")
    said = run(sys.executable, "-m", "jobs", *words, cwd=features, path=[clone])
    assert said.split() == ["6", "ok"]
    said = run(sys.executable, "-m", "jobs", "--help", cwd=features, path=[clone])
    assert "count the rows of an output by status" in said
    for words, status, message in (
        (["--scores", "photos"], 1, "--scores photos must be a folder with part files: give the"),
        (
            ["--scores", "scores", "--most", "0"],
            1,
            "--most 0 must be at least 1: leave --most out for 20",
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "jobs", "count", *words], cwd=features, text=True,
            env=os.environ | {"PYTHONPATH": str(clone)}, capture_output=True,
        )  # fmt: skip
        assert done.returncode == status
        assert message in done.stderr


@pytest.mark.slow
def test_a_prompt_set_has_a_name_and_the_options_page_follows(clone):
    code = "from iqa_core.prompts.pairs import load_pairs; print(load_pairs('light'))"
    said = run(sys.executable, "-c", code, cwd=clone, path=[clone])
    assert "positive='a bright photo', negative='a dark photo'" in said
    run(sys.executable, "-m", "tools.options_page", cwd=clone, path=[clone])
    page = (clone / "docs/options.md").read_text(encoding="utf-8")
    assert "## iqa count" in page
    assert "light, pyiqa, attributes" in page
    assert "pipal, stars" in page


def test_the_page_s_changes_keep_the_rules_of_the_code(clone):
    files = ["iqa_core/releases/stars.py", "jobs/count.py", "iqa_core/releases/table.py"]
    files += ["jobs/cli.py", "iqa_core/prompts/pairs.py"]
    for words in (["check"], ["format", "--check"]):
        run(sys.executable, "-m", "ruff", *words, "--no-cache", *files, cwd=clone, path=[])
