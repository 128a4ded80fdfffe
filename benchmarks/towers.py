"""Seconds and memory of image towers: ours, open_clip's, piq's and pyiqa's, with the same random weights.

    python -m benchmarks.towers [--rounds 5] [--large-rounds 2] [--threads 1 2] [--quick] [--json FILE]

Each tower gets the same images, in turn within a round; a ratio is of two times of one round, and stands
as median (minimum to maximum). From uint8 pixels to unit features for ours, from normalised pixels for
open_clip's, from float32 pixels for piq's and pyiqa's, which their metrics take. Every tower's features of
every image must equal open_clip's, to 1e-5. Peak memory is of a process of its own, with one tower and one
image, above what it had with the tower loaded. pyiqa is measured where it can be imported.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import logging
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from benchmarks.results import Table, save, show, spread
from iqa_core.clip.convolution import Convolution
from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.clip.resnet import ResNet
from iqa_core.clip.vit import Block
from iqa_core.preprocess import Preprocess

TOLERANCE = 1e-5
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
TEXT = {"context_length": 77, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
SIZES = {"1200 x 900": (900, 1200), "4000 x 3000": (3000, 4000)}
MODEL_SIZE = {"tiny": 32, "RN50": 8, "ViT-B-32": 16, "ViT-L-14": 2}  # images in a batch


@torch.no_grad()
def random_clip(name: str) -> nn.Module:
    """Return a CLIP with random weights, and a small text tower, which is not measured."""
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        clip = open_clip.CLIP(**{**config, "text_cfg": TEXT}).eval()
    clip.to_empty(device="cpu")
    generator = torch.manual_seed(0)
    for module in clip.modules():
        for key, tensor in module.named_parameters(recurse=False):
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                tensor.normal_(float(key == "weight"), 0.2, generator=generator)
            else:
                fan_in = tensor[0].numel() if tensor.ndim > 1 else 400
                tensor.normal_(0, fan_in**-0.5, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.num_batches_tracked.zero_()
    for tensor in clip.state_dict().values():
        tensor.copy_(
            tensor.half()
        )  # piq and pyiqa round weights to float16 when they build a tower
    return clip


def photograph(*shape: int) -> np.ndarray:
    """Return smooth noise, (N, H, W, 3) uint8."""
    n, height, width = shape
    coarse = torch.rand(
        n, 3, max(2, height // 32), max(2, width // 32), generator=torch.manual_seed(1)
    )
    fine = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 235
    fine += torch.rand(fine.shape) * 20
    return fine.permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy()


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    return images.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


def our_tower(visual: nn.Module, resolution: str) -> ImageTower:
    size = visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    tower = ImageTower(visual, Preprocess(size, MEAN, STD), resolution, width=1, digest="")
    return tower.to_device("cpu")


def without_positions(visual: nn.Module) -> nn.Module:
    """Return a ResNet for any size of images."""
    visual = copy.deepcopy(visual)
    zeros = torch.zeros_like(visual.attnpool.positional_embedding[:1])
    visual.attnpool.positional_embedding = nn.Parameter(zeros)
    return visual


def native_contenders(clip: nn.Module) -> dict:
    """Return functions (N, H, W, 3) uint8 -> unit features, at native resolution."""
    ours = our_tower(clip.visual, "native")
    theirs = without_positions(clip.visual)
    contenders = {
        "ours": ours.encode,
        "open_clip": lambda pixels: F.normalize(theirs(normalised(pixels)), dim=-1),
    }
    for package in ("piq", "pyiqa"):
        metric = other_metric(package, clip)
        if metric is not None:
            contenders[package] = metric
    return contenders


def other_metric(package: str, clip: nn.Module):
    """Return the tower of piq or pyiqa as its CLIP-IQA runs it, None where it can't be imported."""
    place = {"piq": "piq.feature_extractors.clip", "pyiqa": "pyiqa.archs.clip_model"}[package]
    try:
        build = importlib.import_module(place).build_model
    except ImportError:
        return None
    model = build(dict(clip.state_dict())).float().eval()

    def features(pixels: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
        images = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        return F.normalize(model.encode_image(images, pos_embedding=False).float(), dim=-1)

    return features


def resnet_steps(visual: nn.Module) -> dict[str, nn.Module]:
    """Return the tower for any size, step by step from open_clip's to ours."""
    plain = without_positions(visual).to(memory_format=torch.channels_last)
    pooled = copy.deepcopy(plain)
    pooled.attnpool = ResNet.pool_of(visual, positions=False)
    fused = ResNet.of(visual, positions=False).to(memory_format=torch.channels_last)
    for module in fused.modules():
        if isinstance(module, Convolution):
            module.winograd = False
    whole = ResNet.of(visual, positions=False).to(memory_format=torch.channels_last)
    return {
        "open_clip's module, channels last": plain,
        "+ attention pool of one query": pooled,
        "+ batch norms folded, ReLU and sums fused": fused,
        "+ Winograd for 3 x 3 (ours)": whole,
    }


class AllTokens(nn.Module):
    """The last block of a ViT, computed for all tokens."""

    def __init__(self, block: nn.Module, *, quick_gelu: bool) -> None:
        super().__init__()
        self.block = Block(block, quick_gelu=quick_gelu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, D) -> (N, D)."""
        return self.block(x)[:, 0]


def vit_steps(visual: nn.Module) -> dict[str, nn.Module]:
    tower = our_tower(visual, "model").visual
    plain = copy.deepcopy(tower)
    plain.last = AllTokens(visual.transformer.resblocks[-1], quick_gelu=False)
    return {
        "open_clip's module": visual,
        "own module, all tokens to the end": plain,
        "+ last block for the class token (ours)": tower,
    }


@torch.inference_mode()
def measure(contenders: dict, images, rounds: int, clock) -> dict[str, list[float]]:
    """Return seconds by contender, one after another within each round; check the features first."""
    if rounds > 1:  # else the first call is measured: large images
        features = {name: run(images) for name, run in contenders.items()}
        check(features)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    features = {}
    for _ in range(rounds):
        for name, run in contenders.items():
            began = clock()
            features[name] = run(images)
            times[name].append(clock() - began)
    check(features)
    return times


def check(features: dict[str, torch.Tensor]) -> None:
    """Every row of every contender is there, and is that of the first but for rounding."""
    first = F.normalize(next(iter(features.values())), dim=-1)
    for name, own in features.items():
        own = F.normalize(own, dim=-1)
        assert own.shape == first.shape, name
        difference = float((own - first).abs().max())
        assert difference <= TOLERANCE, f"{name}: features differ by {difference:g}"


def ratio_cells(times: dict[str, list[float]], over: str) -> dict[str, str]:
    """Return how many times as long as ``over`` each takes, by round."""
    return {
        name: spread([a / b for a, b in zip(own, times[over], strict=True)])
        for name, own in times.items()
    }


def peak_of_child(name: str, size: tuple[int, int]) -> float:
    """Return the megabytes that one image takes at most, in a process with this tower alone."""
    words = ["--child", name, str(size[0]), str(size[1])]
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.towers", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(json.loads(child.stdout.splitlines()[-1]))


def memory(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def child(name: str, height: int, width: int) -> None:
    """Print the peak above what the loaded tower takes, in MB."""
    torch.set_num_threads(2)
    contenders = native_contenders(random_clip("RN50"))
    run = contenders[name]
    del contenders
    pixels = photograph(1, height, width)
    with torch.inference_mode():
        run(pixels[:, :64, :64])
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        assert run(pixels).isfinite().all()
    print(json.dumps(memory("VmHWM") - before))


def native_table(arguments, raw: dict) -> Table:
    contenders = native_contenders(random_clip("RN50"))
    others = [name for name in contenders if name != "ours"]
    columns = ["image", "threads", "ours, s", *(f"{name} / ours" for name in others)]
    columns += [f"{name}, peak MB" for name in contenders]
    rows = []
    for title, size in SIZES.items():
        large = size[0] > 2000
        rounds = arguments.large_rounds if large else arguments.rounds
        if not rounds:
            continue
        peaks = {name: peak_of_child(name, size) for name in contenders}
        for threads in arguments.threads[-1:] if large else arguments.threads:
            torch.set_num_threads(threads)
            times = measure(contenders, photograph(1, *size), rounds, arguments.time)
            raw[f"RN50 native {title}, {threads} threads"] = {"seconds": times, "peak_mb": peaks}
            ratios = ratio_cells(times, "ours")
            row = [title, str(threads), spread(times["ours"]), *(ratios[name] for name in others)]
            rows.append([*row, *(f"{peaks[name]:.0f}" for name in contenders)])
            print(*row, flush=True)
    return Table("RN50, one image of native size", columns, rows)


def model_size_table(arguments, raw: dict) -> Table:
    rows = []
    for name, count in MODEL_SIZE.items():
        if name in arguments.skip:
            continue
        if name == "tiny":
            weights = Path(__file__).parents[1] / "iqa_core" / "weights" / "tiny.safetensors"
            load_towers("tiny")  # open_clip knows the architecture then
            clip = open_clip.create_model("tiny", pretrained=str(weights)).eval()
        else:
            clip = random_clip(name)
        ours = our_tower(clip.visual, "model")
        pixels = photograph(count, *ours.preprocess.size)
        floats = normalised(pixels)
        contenders = {
            "ours": lambda images, ours=ours: ours.encode(images),
            "open_clip": lambda _, clip=clip, floats=floats: clip.encode_image(
                floats, normalize=True
            ),
        }
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            times = measure(contenders, pixels, arguments.rounds, arguments.time)
            raw[f"{name}, batch {count}, {threads} threads"] = times
            milliseconds = [1000 * t / count for t in times["ours"]]
            ratio = ratio_cells(times, "ours")["open_clip"]
            rows.append([name, str(count), str(threads), spread(milliseconds, "{:.1f}"), ratio])
            print(*rows[-1], flush=True)
    columns = ["model", "batch", "threads", "ours, ms an image", "open_clip's encode_image / ours"]
    return Table("Images of the model's size", columns, rows)


def steps_table(arguments, raw: dict) -> Table:
    rows = []
    cases = [("RN50 at 1200 x 900", resnet_steps, "RN50", (1, 900, 1200)),
             ("ViT-B-32 at 224, batch 16", vit_steps, "ViT-B-32", (16, 224, 224))]  # fmt: skip
    for title, steps, name, shape in cases:
        if arguments.quick:
            shape = (min(4, shape[0]), *(min(448, side) for side in shape[1:]))
        contenders = steps(random_clip(name).visual)
        torch.set_num_threads(arguments.threads[0])
        floats = normalised(photograph(*shape))
        times = measure(contenders, floats, arguments.rounds, arguments.time)
        raw[f"steps of {title}"] = times
        first = next(iter(times))
        for step, own in times.items():
            gains = [a / b for a, b in zip(times[first], own, strict=True)]
            rows.append([title, step, f"{statistics.median(own):.2f}", spread(gains)])
            print(*rows[-1], flush=True)
    columns = ["tower", "step", "s", "times as fast as open_clip's"]
    return Table(f"Share of each step, {arguments.threads[0]} thread", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--large-rounds", type=int, default=2, help="of 12 megapixels; 0 skips them"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--skip", nargs="*", default=[], metavar="MODEL")
    parser.add_argument("--only", choices=["native", "model", "steps"], help="one table")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--quick", action="store_true", help="2 rounds of small images")
    parser.add_argument("--json", type=Path, help="where to store the results")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.child:
        name, height, width = arguments.child
        child(name, int(height), int(width))
        return
    if arguments.quick:
        arguments.rounds, arguments.threads = 2, arguments.threads[:1]
        SIZES.clear()
        SIZES["400 x 300"] = (300, 400)
        arguments.skip = [*arguments.skip, "ViT-L-14"]
    arguments.time = time.process_time if arguments.clock == "cpu" else time.perf_counter
    raw: dict = {}
    makers = {"steps": steps_table, "model": model_size_table, "native": native_table}
    tables = [
        make(arguments, raw) for name, make in makers.items() if arguments.only in (None, name)
    ]
    show(tables)
    notes = [
        f"CPU capability of torch: {torch.backends.cpu.get_cpu_capability()}.",
        f"Unit features of all towers are equal to {TOLERANCE:g} for every image.",
        f"Times are {arguments.clock} seconds.",
    ]
    if importlib.util.find_spec("pyiqa") is None:
        notes.append("pyiqa was not importable: no row of it.")
    if arguments.json:
        save("towers", tables, notes=notes, raw=raw, path=arguments.json)


if __name__ == "__main__":
    main()
