"""Runs the commands on two logical GPUs, with towers that only pretend to be on a device.

A program of its own, as a process has one Ray: ``python gpu_runs.py FOLDER`` leaves ``FOLDER/runs.json``.
Ray schedules as it would with real GPUs; what a CUDA device alone can show, this does not show.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import ray.train
from torch import nn

import iqa_core.scoring.device_jpeg
import jobs.scoring.run
import jobs.training.run
import jobs.training.workers
from iqa_core.clip.load import load_towers
from iqa_core.prompts.ensemble import PromptEnsemble
from iqa_core.scoring.device_jpeg import DeviceDecoder
from jobs.cli import main

ROOT = Path(__file__).parents[2]


class OnDevice(nn.Module):
    """An image tower that takes ``cuda`` for a device which it is on already.

    Compiled, it is not: it leaves a file in a folder with what it would be compiled for. A run without
    ``--compile`` needs none.
    """

    takes_tensors = True

    def __init__(self, tower, folder=None):
        super().__init__()
        self.tower = tower
        self.folder = folder
        self.device = "cpu"
        self.preprocess, self.width, self.digest = tower.preprocess, tower.width, tower.digest

    def to_device(self, device, precision):
        assert (device, precision) == ("cuda", "fp16")
        self.device = device
        return self

    def compile_for(self, batch_size):
        assert self.device == "cuda"
        (self.folder / f"compiled-{os.getpid()}").write_text(str(batch_size))

    def encode(self, pixels):
        assert self.device == "cuda"
        time.sleep(0.2)  # so that one actor does not do all before another has started
        return self.tower.encode(pixels)


class JpegsOnDevice(DeviceDecoder):
    """A decoder whose device is the CPU, and which is told ``cuda``."""

    def decode(self, images, device):
        assert device == "cuda"
        return super().decode(images, "cpu")


class TextOnDevice(nn.Module):
    """A text tower that stays where it is."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def to(self, device):
        assert device.type == "cuda"
        return self

    def __getattr__(self, name):
        if name == "tower":
            return super().__getattr__(name)
        return getattr(self.tower, name)


class EnsembleOnDevice(PromptEnsemble):
    """Contexts that stay where they are."""

    def to(self, device):
        assert device.type == "cuda"
        return self


def pretend(folder=None):
    """Put such towers in the place of loaded ones; they may write to a folder."""

    def load(model, *options):
        towers = load_towers(model, *options)
        return replace(towers, image=OnDevice(towers.image, folder))

    def load_to_train(model):
        towers = load_towers(model)
        return replace(towers, load_text=lambda: TextOnDevice(towers.text))

    jobs.scoring.run.lightest_towers = load
    iqa_core.scoring.device_jpeg.DeviceDecoder = JpegsOnDevice
    jobs.training.run.load_towers = load_to_train
    jobs.training.run.PromptEnsemble = EnsembleOnDevice
    jobs.training.workers._backend = lambda scaling: "gloo"  # NCCL takes no logical GPUs


def callers(started):
    """Note which lines of jobs/ ask Ray for GPUs."""

    def noting(function):
        def call(*positions, **options):
            if options.get("num_gpus") or options.get("use_gpu"):
                frames = traceback.extract_stack()
                (frame,) = [f for f in frames if Path(f.filename).is_relative_to(ROOT / "jobs")][
                    -1:
                ]
                started.add(f"{Path(frame.filename).name}:{frame.name}")
            return function(*positions, **options)

        return call

    ray.data.Dataset.map_batches = noting(ray.data.Dataset.map_batches)
    jobs.training.run.ScalingConfig = noting(jobs.training.run.ScalingConfig)


def command(*words):
    """Run one command; return what it printed and its status."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in words])
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def write_images(folder):
    from PIL import Image

    uris = []
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 60 + 3 * number, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        uris.append(f"{number}.png")
    (folder / "59.png").write_bytes((folder / "58.png").read_bytes())
    pq.write_table(pa.table({"uri": [*uris, "none.png"]}), folder / "m.parquet")


def write_jpegs(folder):
    """Images that a GPU decodes, in all orientations, and some that it does not."""
    from PIL import Image

    uris = []
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 60 + 8 * number, (12, 15, 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = number % 8 + 1
        image = Image.fromarray(pixels).resize((400, 320), Image.Resampling.BICUBIC)
        uris.append(f"{number}.jpg")
        image.save(folder / uris[-1], exif=exif)
    whole = (folder / "0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "closed.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    uris += ["0.png", "cut.jpg", "closed.jpg", "none.jpg"]
    pq.write_table(pa.table({"uri": uris}), folder / "jpegs.parquet")


def start():
    ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)


def run_all(folder):
    write_images(folder)
    manifest = ("--manifest", folder / "m.parquet", "--batch-size", 4)
    runs = {"without a device": command("score", *manifest, "--output", folder / "broken")}
    pretend(folder)
    options = {
        "two actors": (),
        "one actor": ("--num-actors", 1, "--compile"),
        "half a GPU each": ("--gpus-per-actor", 0.5),
        "a CPU for two": ("--cpus-per-actor", 0.5, "--hash", "--descriptors", "--dedupe"),
    }
    for name, words in options.items():
        output = folder / name.replace(" ", "-")
        runs[name] = command("score", *manifest, "--output", output, *words)
        runs[name] |= json.loads((output / "_run/summary.json").read_text())
    write_jpegs(folder)
    jpegs = ("--manifest", folder / "jpegs.parquet", "--batch-size", 4, "--hash")
    jpegs += ("--max-error-rate", 0.2)
    for name in ("gpu", "exact"):
        output = folder / f"decoded-{name}"
        runs[f"decoded {name}"] = command("score", *jpegs, "--output", output, "--decode", name)
        runs[f"decoded {name}"] |= json.loads((output / "_run/summary.json").read_text())
    features = folder / "features"
    runs["embed"] = command("embed", *manifest, "--output", features, "--views", 2)
    runs["embed"] |= json.loads((features / "_run/summary.json").read_text())
    runs["rescore"] = command("rescore", "--features", features, "--output", folder / "rescored")
    ray.shutdown()  # actors of a data set may outlive it for a while, and hold their GPUs
    start()
    for workers in (2, 1):
        learned = folder / f"learned-{workers}.safetensors"
        words = ("--features", features, "--output", learned, "--num-workers", workers)
        words += ("--steps", 4, "--checkpoint-steps", 2, "--list-size", 4, "--pairs", "clip-iqa")
        runs[f"train on {workers}"] = command("train", *words, "--holdout", 0.2)
    return runs


if __name__ == "__main__":
    folder, started = Path(sys.argv[1]), set()
    start()
    callers(started)
    runs = run_all(folder)
    (folder / "runs.json").write_text(json.dumps({"runs": runs, "started": sorted(started)}))
    ray.shutdown()
