r"""Whole commands of this project against those of its peers, on the same images and weights.

    python -m benchmarks.peers [--only SETTING ...] [--peers NAME ...] [--scale 1] [--rounds 3]
        [--packages FOLDER] [--noise 0] [--json FILE]

Each command is timed from its process's start to its exit and leaves one score for each image in
Parquet files. Settings that are not measured are kept as the file of results has them, if it is of the
same machine. In each round all commands of a setting run in turn, for N images and for N / 4; the
difference of the two is the time an image takes without start-up. Ratios are a peer's time divided by
that of `iqa score` in the same round: above 1 this project is faster. `best peer` is in each round the
peer that was fastest in it. The default counts make commands of 10 to 25 s on two cores, where Ray's
start weighs heavily; `--scale 3 --rounds 5` is for figures that are kept.

The commands are `iqa score` (local Ray, started cold) and the scripts of `benchmarks/peer_scripts/`.
Their docstrings say what is patched: the loading of weights where a library only downloads, never the
computation. All get one file of random weights. pyiqa and Daft are not among this project's own
dependencies. Installed apart, they are found with --packages:

    pip install --no-deps --target FOLDER daft pyiqa==0.1.16 openai-clip==1.0.1 \
        opencv-python-headless 'setuptools<81'

A run counts only if each image has exactly one score, within TOLERANCE of what `Scorer` gives for it
with exact decoding and the command's own prompts. pyiqa, piq and torchmetrics keep the image's size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.dataset as ds

from benchmarks.peer_inputs import image_folder, random_weights
from benchmarks.photos import files as photo_files
from benchmarks.results import FOLDER, Table, machine, save, show, spread

OURS = "iqa score"
SCRIPTS = "benchmarks.peer_scripts"


@dataclass(frozen=True)
class Peer:
    """A command.

    Attributes:
        module: Of ``benchmarks.peer_scripts``; empty for ``iqa score``.
        package: That it needs.
        native: Whether it runs where images keep their size, and whether where they do not.
        tolerance: Of its scores against exact ones.
        pairs: Its prompts, as ``--pairs`` names them.
    """

    module: str
    package: str
    native: tuple[bool, ...]
    tolerance: float
    pairs: str = "clip-iqa"


#: Scaled decoding and Daft's decoder give pixels of their own; native-size towers order sums differently.
PEERS: dict[str, Peer] = {
    OURS: Peer("", "ray", (False, True), 0.02),
    "Scorer in a script": Peer("scorer", "torch", (False, True), 0.02),
    "DataLoader + open_clip": Peer("dataloader", "open_clip", (False,), 1e-3),
    "Ray Data template": Peer("ray_data", "ray", (False,), 1e-3),
    "Daft": Peer("daft_udf", "daft", (False,), 0.02),
    "pyiqa": Peer("pyiqa_loop", "pyiqa", (True,), 1e-3, pairs="pyiqa"),
    "piq": Peer("piq_loop", "piq", (True,), 1e-3),
    "torchmetrics": Peer("torchmetrics_loop", "torchmetrics", (True,), 1e-3),
}


@dataclass(frozen=True)
class Setting:
    """Images and a model; ``rows`` are N at ``--scale 1``."""

    model: str
    width: int
    height: int
    rows: int
    native: bool = False


SETTINGS: dict[str, Setting] = {
    "ViT-B-32 4000 x 3000": Setting("ViT-B-32", 4000, 3000, 200),
    "ViT-B-32 1200 x 900": Setting("ViT-B-32", 1200, 900, 400),
    "ViT-B-32 640 x 480": Setting("ViT-B-32", 640, 480, 500),
    "RN50 4000 x 3000": Setting("RN50-quickgelu", 4000, 3000, 200),
    "RN50 native 1200 x 900": Setting("RN50-quickgelu", 1200, 900, 16, native=True),
}
#: Without `--only`: what fits in 20 minutes.
DEFAULT = [name for name in SETTINGS if name != "RN50 4000 x 3000"]


@dataclass(frozen=True)
class Round:
    """One command in one round.

    Attributes:
        rows: N and N / 4.
        seconds: Of the two commands.
        difference: Largest of its scores to the exact ones.
    """

    rows: tuple[int, int]
    seconds: tuple[float, float]
    difference: float

    @property
    def per_image(self) -> float:
        """Seconds an image takes without start-up."""
        return (self.seconds[0] - self.seconds[1]) / (self.rows[0] - self.rows[1])


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*SETTINGS], default=DEFAULT)
    parser.add_argument("--peers", nargs="+", choices=[*PEERS], default=[*PEERS])
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the numbers of images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.0, help="grey levels, for larger files")
    parser.add_argument("--packages", type=Path, help="folder with pyiqa and Daft")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = [name for name in PEERS if name in {OURS, *arguments.peers}]
    missing = [name for name in names if not installed(PEERS[name], arguments.packages)]
    notes = [f"{name} was not installed." for name in missing]
    raw, earlier = kept_results(arguments.json or FOLDER / "peers.json", arguments.only)
    notes += earlier
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.packages, arguments.noise)
        for name in arguments.only:
            setting = SETTINGS[name]
            peers = [p for p in names if p not in missing and setting.native in PEERS[p].native]
            rounds, failed = bench.measure(setting, peers, arguments.scale, arguments.rounds)
            notes += [f"{name}: {peer} failed: {reason}" for peer, reason in failed.items()]
            raw[name] = {p: [asdict(each) for each in found] for p, found in rounds.items()}
            show([table(name, rounds)])
            tables = [table(one, rounds_of(raw[one])) for one in SETTINGS if one in raw]
            save("peers", tables, notes=notes, raw=raw, path=arguments.json)
    print(*notes, sep="\n")


def kept_results(path: Path, measured: list[str]) -> tuple[dict[str, dict], list[str]]:
    """Return raw results of other settings that a file of this machine has, and notes on them.

    Packages may have had other versions: the notes say which.
    """
    if not path.exists():
        return {}, []
    stored = json.loads(path.read_text(encoding="utf-8"))
    then, now = stored["machine"], machine()
    before, after = then.pop("packages"), now.pop("packages")
    if then != now:
        return {}, []
    others = "".join(f", {each} {before[each]}" for each in before if before[each] != after[each])
    raw = {name: rounds for name, rounds in stored["raw"].items() if name not in measured}
    about = tuple(f"{name}: " for name in raw)
    notes = [note for note in stored["notes"] if note.startswith(about)]
    dated = {note.partition(": measured on ")[0] for note in notes}
    command = stored["command"]
    notes += [
        f"{name}: measured on {stored['date']} by `{command}`{others and ' with' + others[1:]}."
        for name in raw
        if name not in dated
    ]
    return raw, notes


def rounds_of(raw: dict[str, list[dict]]) -> dict[str, list[Round]]:
    """Return the rounds of each peer as they were stored."""
    return {peer: [Round(**each) for each in found] for peer, found in raw.items()}


def environment(packages: Path | None) -> dict[str, str]:
    """Return the environment of a command."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "DAFT_ANALYTICS_ENABLED": "0"}
    paths = [str(Path(__file__).parents[1]), *([str(packages.resolve())] if packages else [])]
    return os.environ | quiet | {"PYTHONPATH": os.pathsep.join(paths)}


def installed(peer: Peer, packages: Path | None) -> bool:
    """Return whether the package of a peer is there."""
    search = f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({peer.package!r}))"
    return not subprocess.run([sys.executable, "-c", search], env=environment(packages)).returncode


class Bench:
    """Runs commands in a folder.

    Args:
        folder: For images, weights and outputs.
        packages: See ``--packages``.
        noise: See ``--noise``.
    """

    def __init__(self, folder: Path, packages: Path | None, noise: float) -> None:
        self.folder = folder
        self.plain = environment(None)
        self.extended = environment(packages)
        self.noise = noise

    def measure(
        self, setting: Setting, peers: list[str], scale: float, rounds: int
    ) -> tuple[dict[str, list[Round]], dict[str, str]]:
        """Return the rounds of each peer, and why others failed."""
        files = photo_files((setting.width, setting.height), noise=self.noise)
        place = self.folder / f"{setting.width}"
        long = max(4, round(setting.rows * scale))
        folders = [image_folder(place, files, rows) for rows in (long, long // 4)]
        few = image_folder(place, files, len(files))
        weights = self.folder / f"{setting.model}.pt"
        if not weights.exists():
            random_weights(weights, setting.model)
        exact = {
            pairs: self.exact(setting, few, weights, pairs)
            for pairs in sorted({PEERS[peer].pairs for peer in peers})
        }
        found: dict[str, list[Round]] = {peer: [] for peer in peers}
        failed: dict[str, str] = {}
        for number in range(rounds):
            for peer in peers if number % 2 == 0 else peers[::-1]:
                if peer in failed:
                    continue
                try:
                    runs = [self.run(setting, peer, images, weights) for images in folders]
                    expected = exact[PEERS[peer].pairs]
                    differences = [
                        largest_difference(scores, expected, images, PEERS[peer].tolerance)
                        for (_, scores), images in zip(runs, folders, strict=True)
                    ]
                except RuntimeError as error:
                    if peer == OURS:
                        raise
                    failed[peer] = str(error)
                    found.pop(peer)
                    continue
                seconds = (runs[0][0], runs[1][0])
                found[peer].append(Round((long, long // 4), seconds, max(differences)))
        return found, failed

    def exact(self, setting: Setting, few: Path, weights: Path, pairs: str) -> list[float]:
        """Return the score of each photograph."""
        more = ["--pairs", pairs, "--decode", "exact"]
        _, scores = self.run(setting, "Scorer in a script", few, weights, more)
        values = [score for _, score in sorted(scores)]
        if max(values) - min(values) < 0.1:
            raise RuntimeError(f"scores of {setting.model} are too much alike to compare: {values}")
        return values

    def run(
        self,
        setting: Setting,
        peer: str,
        images: Path,
        weights: Path,
        more: list[str] | None = None,
    ) -> tuple[float, list[tuple[str, float]]]:
        """Return a command's seconds, and the name and score of each of its rows."""
        output = self.folder / "output"
        shutil.rmtree(output, ignore_errors=True)
        resolution = ["--resolution", "native" if setting.native else "model"]
        if peer == OURS:
            words = ["jobs", "score", "--manifest", f"{images}.parquet", "--output", str(output)]
            words += ["--model", f"{setting.model}@{weights}", "--pairs", "clip-iqa", *resolution]
        else:
            words = [f"{SCRIPTS}.{PEERS[peer].module}", str(images), str(output), setting.model]
            words += [str(weights), *resolution, *(more or [])]
        apart = PEERS[peer].package in ("pyiqa", "daft")
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *words],
            env=self.extended if apart else self.plain,
            capture_output=True,
            text=True,
        )
        seconds = time.monotonic() - began
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
            raise RuntimeError(f"exit status {done.returncode}: {lines[-1]}")
        return seconds, rows_of(output)


def rows_of(output: Path) -> list[tuple[str, float]]:
    """Return name and score of each row of an output."""
    # Ours also has files of its own there: reports, the configuration.
    files = sorted(map(str, output.rglob("*.parquet")))
    found = ds.dataset(files, format="parquet").to_table()
    place = "uri" if "uri" in found.column_names else "path"
    names = [str(value).rpartition("/")[2] for value in found[place].to_pylist()]
    return list(zip(names, found["score"].to_pylist(), strict=True))


def largest_difference(
    rows: list[tuple[str, float]], exact: list[float], images: Path, tolerance: float
) -> float:
    """Return how far scores are from the exact ones.

    Raises:
        RuntimeError: If an image has no score or two, or a score is farther off than the tolerance.
    """
    names = sorted(path.name for path in images.iterdir())
    if sorted(name for name, _ in rows) != names:
        raise RuntimeError(f"{len(names)} images in, {len(rows)} rows out, or others")
    if any(score is None for _, score in rows):
        raise RuntimeError("an image has no score")
    expected = {name: exact[number % len(exact)] for number, name in enumerate(names)}
    differences = [abs(score - expected[name]) for name, score in rows]
    far = [difference for difference in differences if not difference <= tolerance]  # also NaN
    if far:
        raise RuntimeError(f"scores are {max(far):.2g} from exact ones, more than {tolerance:g}")
    return max(differences)


def table(name: str, rounds: dict[str, list[Round]]) -> Table:
    """Return times and ratios, medians and ranges over rounds."""
    ours = rounds[OURS]
    long, short = ours[0].rows
    rows = []
    for peer, found in rounds.items():
        rows.append([
            peer,
            spread([each.seconds[0] for each in found], "{:.1f}"),
            spread([each.seconds[1] for each in found], "{:.1f}"),
            spread([1000 * each.per_image for each in found], "{:.1f}"),
            *ratios(found, ours),
            f"{max(each.difference for each in found):.1g}",
        ])  # fmt: skip
    others = [found for peer, found in rounds.items() if peer not in (OURS, "Scorer in a script")]
    if others:
        turns = list(zip(*others, strict=True))
        whole = [min(turn, key=lambda each: each.seconds[0]) for turn in turns]
        steady = [min(turn, key=lambda each: each.per_image) for turn in turns]
        best = [ratios(whole, ours)[0], ratios(steady, ours)[1]]
        rows.append(["best peer", "", "", "", *best, ""])
    head = ["command", f"{long} images, s", f"{short} images, s", "ms an image without start"]
    head += [f"whole command / {OURS}", f"image / {OURS}", "score difference"]
    return Table(f"{name}, {os.cpu_count()} CPUs: time of whole commands", head, rows)


def ratios(found: list[Round], ours: list[Round]) -> tuple[str, str]:
    """Return times relative to ours: of the whole command, and of an image without start-up."""
    pairs = list(zip(found, ours, strict=True))
    whole = [peer.seconds[0] / mine.seconds[0] for peer, mine in pairs]
    image = [peer.per_image / mine.per_image for peer, mine in pairs]
    return spread(whole), spread(image)


if __name__ == "__main__":
    main()
