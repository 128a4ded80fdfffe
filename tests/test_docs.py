"""The documentation against the code: commands that parse, links that lead somewhere, names that exist."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import benchmarks.page
from jobs.cli import COMMANDS, main
from jobs.options import add_options
from tools import options_page

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
#: What is true now; the changelog also names what was.
CURRENT = [README, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
PAGES = [*CURRENT, ROOT / "CHANGELOG.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
#: Flags of programs other than `iqa`.
OTHER_FLAGS = {"--chaos", "--validation", "--bfloat16", "--compile", "--steps", "--init"}
OTHER_FLAGS |= {"--working-dir", "--object-store-memory", "--shm-size"}  # of Ray and Docker


def read(page):
    return page.read_text(encoding="utf-8")


def name(page):
    return str(page.relative_to(ROOT))


def parser_of(command):
    """Return the parser of a command, which raises instead of leaving the program."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, importlib.import_module(f"jobs.{command}").Config)
    return parser


def commands():
    """Return (page, words) of every complete command line in the documentation's blocks."""
    found = []
    for page in PAGES:
        text = read(page)
        blocks = [block for _, block in BLOCK.findall(text)]
        indented = [line.strip() for line in text.splitlines() if line.startswith("    ")]
        lines = "\n".join([*blocks, *indented]).replace("\\\n", " ").splitlines()
        for line in lines:
            command = re.search(r"(?:^|\s)(?:iqa|python -m jobs) (.*)", line.partition(" #")[0])
            if command and line.strip().startswith(("iqa ", "python -m jobs ", "ray job submit ")):
                words = re.sub(r" > [\w./-]+$", "", command[1]).replace("[", "").replace("]", "")
                found.append((name(page), shlex.split(words)))
    return found


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", read(page))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def test_the_page_of_options_is_the_code_s():
    assert read(options_page.PAGE) == options_page.render(), "run python -m tools.options_page"


def test_the_page_of_performance_is_that_of_the_results():
    assert read(benchmarks.page.PAGE) == benchmarks.page.render(), "run python -m benchmarks.page"
    assert read(benchmarks.page.FIGURE) == benchmarks.page.figure(), "run python -m benchmarks.page"


def test_the_page_of_options_has_every_option():
    text = read(options_page.PAGE)
    sections = {part.partition("\n")[0]: part for part in text.split("\n## iqa ")[1:]}
    assert set(sections) == set(COMMANDS)
    assert "| `--manifest M` |" in sections["verify"]
    assert sections["verify"].count("| required |") == 2
    assert "at least 0 and at most 1 | 0.05 |" in sections["score"]


def test_commands_are_found():
    found = commands()
    assert {"README.md", "docs/tutorial.md", "docs/cluster.md"} <= {page for page, _ in found}
    assert {words[0] for _, words in found} >= {"manifest", "score", "embed", "train", "evaluate"}


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: str(value)[:40])
def test_each_command_parses(page, words):
    command, *arguments = words
    assert command in COMMANDS
    try:
        _, unknown = parser_of(command).parse_known_args(arguments)
    except argparse.ArgumentError as error:
        pytest.fail(f"{page}: iqa {' '.join(words)}: {error}")
    assert unknown == [], page


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_each_flag_in_the_text_exists(page):
    known = {flag for command in COMMANDS for flag in parser_of(command)._option_string_actions}
    text = BLOCK.sub("", read(page))
    spans = [span for span in SPAN.findall(text) if span.startswith(("-", "iqa "))]
    flags = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", span)}
    assert flags - known - OTHER_FLAGS == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_link_leads_somewhere(page):
    broken = []
    for target in LINK.findall(BLOCK.sub("", read(page))):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_each_file_and_module_that_is_named_exists(page):
    missing = []
    for span in SPAN.findall(BLOCK.sub("", read(page))):
        path = re.fullmatch(
            r"((?:iqa_core|jobs|tests|tools|benchmarks|docs|deploy)/[\w./-]*)", span
        )
        if path and not (ROOT / path[1]).exists():
            missing.append(span)
        for module in re.findall(r"python -m ((?:tools|benchmarks)[\w.]+)", span):
            if not (ROOT / f"{module.replace('.', '/')}.py").is_file():
                missing.append(span)
        for module in re.findall(r"\biqa_core(?:\.[a-z_]+)+\b", span):
            file = ROOT / module.replace(".", "/")
            if not (file.is_dir() or file.with_suffix(".py").is_file()):
                missing.append(span)
    assert missing == []


def test_every_page_is_in_the_index():
    index = set(LINK.findall(read(ROOT / "docs/index.md")))
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"index.md"}
    assert pages - {link.partition("#")[0] for link in index} == set()


def test_the_readme_has_the_two_commands_and_a_picture():
    assert "```\nmake demo\nmake test\n```" in read(README)
    with Image.open(ROOT / "docs/report.jpg") as picture:
        assert picture.width >= 800
    assert (ROOT / "docs/report.jpg").stat().st_size < 150_000


def test_one_version():
    version = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["version"]
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert citation["version"] == version
    released = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)$", read(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert released[0] == (version, str(citation["date-released"]))


@pytest.fixture
def home(tmp_path, photos, monkeypatch):
    """A home folder with `photos/`, and a working folder in it."""
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(list(photos.values())[:3]):
        Image.fromarray(image[:200, :200]).save(tmp_path / f"photos/{number}.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.ray
def test_the_commands_of_the_readme_run(ray_cluster, home, capsys):
    block = read(README).partition("## Score your images")[2].split("```")[1]
    lines = [line.partition(" #")[0] for line in block.strip().splitlines()]
    assert [line.split()[0] for line in lines] == ["pip", *["iqa"] * 5]
    for line in lines[1:]:
        words = [str(Path(word).expanduser()) for word in shlex.split(line)[1:]]
        assert main(words) == 0, capsys.readouterr().err
    rows = pq.read_table(home / "scores").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert "<html" in (home / "report.html").read_text(encoding="utf-8")


def test_python_of_the_scoring_page_runs(home, photos):
    for number, image_name in enumerate(("a.jpg", "b.jpg")):
        Image.fromarray(list(photos.values())[number][:200, :200]).save(image_name)
    section = read(ROOT / "docs/scoring.md").partition("## From Python")[2]
    (language, code) = BLOCK.findall(section)[0]
    assert language == "python"
    names = {}
    exec(compile(code, "docs/scoring.md", "exec"), names)  # noqa: S102
    assert names["scores"].score.shape == (2,)
    assert np.isfinite(names["scores"].score).all()
    assert "scores.sharpness" in names["scores"].to_pandas().columns
