"""Train `tiny` on the rendered cache: image tower first, then words, then both.

1. Image tower. Each axis (sharp to blurry, ...) has two prototype vectors in the joint space, one
   for each end. The tower learns, by soft targets, where an image lies between them, to order the
   images of a group as HaarPSI does, and to name the distortion kinds (a head that is thrown
   away).
2. Readout. The layers stay as they are; the last projection and the prototypes are trained on the
   pooled features of whole images, which are computed once. So this is quick.
3. Words. The text tower maps every caption to the prototype that it means. No image is needed, so
   this is quick.
4. Both. The same losses as in 1, with captions in place of the prototypes.

The form of the scores is CLIP's (Radford et al., ICML 2021, https://arxiv.org/abs/2103.00020):
`sigmoid(g * (<f, z+> - <f, z->))`. What differs: the contrastive loss is replaced by dense targets,
as the renderer knows how true each caption is of each image. The order loss is RankNet (Burges et
al., ICML 2005). The positional embedding of the attention pool is fixed at zero, so that the tower
takes images of any size.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.prompts.pairs import NAMED_PAIRS
from tools.tiny.captions import AXES, Caption, axis_targets, draw_caption, perceived
from tools.tiny.render import ALL_KINDS, GROUP, OFTEN, TRAIN_KINDS

__all__ = ["Cache", "Settings", "Student", "export", "train"]

MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1) * 255
STD = torch.tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1) * 255
AXIS_NAMES = [axis.name for axis in AXES]
# The scores that the order losses act on, as shares of axes, and their weights: the axes that the
# five pairs of pyiqa ask for, and those of this project's own ten pairs.
SCORES: tuple[tuple[float, dict[str, float]], ...] = (
    (0.65, {"quality": 0.2, "sharpness": 0.4, "resolution": 0.2, "noise": 0.2}),
    (
        0.35,
        {
            **{"quality": 0.2, "sharpness": 0.1, "focus": 0.1, "noise": 0.1, "compression": 0.1},
            **{"exposure": 0.1, "contrast": 0.1, "colour truth": 0.1, "resolution": 0.1},
        },
    ),
)
SHARES = torch.tensor([[share.get(name, 0.0) for name in AXIS_NAMES] for _, share in SCORES])
# Weights of axes in the losses, 1 if not named: what all scores need, and what is learned last.
HEAVY = {"quality": 3.0, "contrast": 4.0}
FORMAT_VERSION = 1
BLOCK = re.compile(r"visual\.layer\d\.\d+\.")


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        stage: `image`, `readout`, `text` or `both`.
        steps: Optimiser steps of the whole stage.
        learning_rate: Peak rate of AdamW; rises over 5 % of the steps, then falls as a cosine.
        groups: Groups of six images in a batch.
        crop: Side of the random square that is cut from each cached image.
        seed: Order of data, crops and captions.
        threads: CPU threads.
        save_every: Steps between checkpoints.
        minutes: Wall time of this run, 0 for no limit. The rate then falls with the time as well,
            so that training ends well on a busy machine (and differs from run to run).
        last_crop: Side of the squares in the last 30 % of the run, 0 for no change.
        decay: Share of the run, at its end, in which the rate falls; 1 is a cosine throughout.
        bfloat16: Run the image tower in bfloat16; 1.3 to 1.6 times as fast on a CPU with AMX.
        compile: Compile the image tower: faster again, after a minute or more of compiling.
    """

    stage: str
    steps: int
    learning_rate: float
    groups: int
    crop: int
    seed: int
    threads: int
    save_every: int
    minutes: float
    last_crop: int
    decay: float
    bfloat16: bool
    compile: bool


class Cache:
    """The rendered groups: images `(groups, 6, 224, 224, 3)` on disk, targets in memory."""

    def __init__(self, folder: Path) -> None:
        """Open all shards of a folder."""
        shards = sorted(p for p in folder.glob("shard-?????.npy"))
        if not shards:
            raise FileNotFoundError(f"no shards in {folder}: run the render command first")
        self.crop = 0  # overrides the setting while training
        self.images = [np.load(p, mmap_mode="r") for p in shards]
        tables = [np.load(p.with_suffix(".table.npy")) for p in shards]
        self.sizes = [len(t) // GROUP for t in tables]
        self.table = np.concatenate(tables)
        self.targets = axis_targets(self.table)
        self.quality = perceived(self.table[:, 4])
        self.kinds = np.zeros((len(self.table), len(ALL_KINDS)), np.float32)
        for column in (0, 2):
            rows = np.flatnonzero(self.table[:, column] >= 0)
            kind = self.table[rows, column].astype(int)
            self.kinds[rows, kind] = np.clip(0.4 + 1.5 * self.table[rows, column + 1], 0, 1)
        self.place = [(s, g) for s, n in enumerate(self.sizes) for g in range(n)]
        held = self.table[::GROUP, 11] > 0
        self.validation = np.flatnonzero(held)
        self.training = np.flatnonzero(~held)
        first = self.table[1::GROUP]  # the first distorted image of each group
        self.mixtures = np.flatnonzero(~held & (first[:, 9] == 0))
        self.ladders = [
            np.flatnonzero(~held & (first[:, 9] > 0) & (first[:, 0] == ALL_KINDS.index(kind)))
            for kind in TRAIN_KINDS
        ]
        chance = np.array([OFTEN.get(kind, 1.0) for kind in TRAIN_KINDS])
        self.chance = np.where([len(some) > 0 for some in self.ladders], chance, 0.0)
        self.chance /= self.chance.sum()

    def draw(self, rng: np.random.Generator, groups: int) -> NDArray[np.int64]:
        """Draw training groups: half mixtures, half ladders of few kinds, to be distinguished."""
        half = groups // 2
        parts = [rng.choice(self.mixtures, groups - half)]
        few = max(1, half // 2)
        kinds = rng.choice(len(self.ladders), few, replace=False, p=self.chance)
        for number, kind in enumerate(kinds):
            count = half // few + (number < half % few)
            parts.append(rng.choice(self.ladders[kind], count))
        return np.concatenate(parts)

    def read(self, groups: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images `(6 * groups, 224, 224, 3)` and their rows in the table."""
        parts = []
        for group in groups:
            shard, local = self.place[group]
            parts.append(self.images[shard][local * GROUP : (local + 1) * GROUP])
        rows = (groups[:, None] * GROUP + np.arange(GROUP)).ravel()
        return np.concatenate(parts), rows

    def batches(self, settings: Settings, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised crops `(N, 3, crop, crop)` and rows `(N,)`, from step `start` on."""
        for step in range(start, settings.steps):
            rng = np.random.default_rng([settings.seed, step])
            groups = self.draw(rng, settings.groups)
            images, rows = self.read(groups)
            side = self.crop or settings.crop
            slack = images.shape[1] - side
            cut = np.empty((len(images), side, side, 3), np.uint8)
            for i, image in enumerate(images):
                if i % GROUP == 0:  # one place for a group, so that its order stays comparable
                    top, left = rng.integers(0, slack + 1, 2)
                    flip = 1 if rng.random() < 0.5 else -1
                    turn = rng.random() < 0.25
                part = image[top : top + side, left : left + side][:, ::flip]
                cut[i] = part.transpose(1, 0, 2) if turn else part
            yield normalise(cut), torch.from_numpy(rows)


def normalise(images: NDArray[np.uint8]) -> Tensor:
    """uint8 `(N, H, W, 3)` -> float32 `(N, 3, H, W)` in channels-last memory."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return batch.sub_(MEAN).div_(STD)


class Student(nn.Module):
    """The CLIP under training with its prototypes and its throw-away head.

    Args:
        config: open_clip's architecture file; the model's name is the file's stem.
    """

    def __init__(self, config: Path) -> None:
        """Build the model at random."""
        super().__init__()
        open_clip.add_model_config(config)
        self.clip = open_clip.create_model(config.stem)
        self.tokenizer = open_clip.get_tokenizer(config.stem)
        width = self.clip.text_projection.shape[1]
        self.prototypes = nn.Parameter(torch.randn(len(AXES), 2, width) * width**-0.5)
        self.kind_head = nn.Linear(width, len(ALL_KINDS))
        self.side: int = json.loads(config.read_text())["vision_cfg"]["image_size"]
        pool = getattr(self.clip.visual, "attnpool", None)
        if (
            pool is not None
        ):  # a ResNet; ViTs are trained for the comparison in docs/tiny-history.md only
            self.positions = pool.positional_embedding.shape
            pool.positional_embedding = nn.Parameter(
                torch.zeros(1, self.positions[1]), requires_grad=False
            )
        with torch.no_grad():
            self.clip.logit_scale.fill_(float(np.log(20.0)))
        self.clip.visual.to(memory_format=torch.channels_last)
        self._tokens: dict[str, list[int]] = {}

    def ends(self) -> Tensor:
        """Unit prototypes `(axes, 2, D)`: positive end, negative end."""
        return F.normalize(self.prototypes, dim=-1)

    def texts(self, texts: list[str], chunk: int = 64) -> Tensor:
        """Unit text features `(N, D)`; runs only the tokens up to the last end-of-text."""
        rows = []
        for text in texts:
            if text not in self._tokens:
                self._tokens[text] = [49406, *self.tokenizer.encode(text), 49407]
            rows.append(self._tokens[text])
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # alike lengths together
        parts = [
            self._encode([rows[i] for i in order[start : start + chunk]])
            for start in range(0, len(rows), chunk)
        ]
        features = torch.cat(parts)[torch.tensor(order).argsort()]
        return F.normalize(features.float(), dim=-1)

    def _encode(self, rows: list[list[int]]) -> Tensor:
        """Text features `(N, D)` of token rows, of any length of theirs."""
        length = max(len(row) for row in rows)
        tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        clip = self.clip
        x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        last = torch.tensor([len(row) - 1 for row in rows])
        return x[torch.arange(len(x)), last] @ clip.text_projection

    def meaning(self, captions: list[Caption]) -> Tensor:
        """Unit prototypes `(N, D)` of what captions mean; between both ends for weaker ones."""
        ends = self.ends()
        middle = ends.mean(dim=(0, 1))
        targets = []
        for caption in captions:
            if caption.axis < 0:
                targets.append(middle)
                continue
            positive, negative = ends[caption.axis]
            if caption.second >= 0:
                positive, negative = 0.5 * (ends[caption.axis] + ends[caption.second])
            weight = (1 + caption.sign) / 2
            targets.append(weight * positive + (1 - weight) * negative)
        return F.normalize(torch.stack(targets), dim=-1)


def image_losses(
    margins: Tensor, targets: Tensor, quality: Tensor, kinds: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Losses of margins `(N, axes)` against targets in `[0, 1]` and the order of images.

    Args:
        margins: `g * (<f, z+> - <f, z->)` of each image and axis.
        targets: Where each image lies on each axis.
        quality: HaarPSI, stretched, `(N,)` in groups of six.
        kinds: Position of the one kind of each image `(N,)`; -1 for clean images and mixtures.
        weights: Weight of each axis, `(axes,)`.

    Returns:
        Soft cross-entropy (less its own minimum), RankNet within groups for the scores and for each
        axis, RankNet over the whole batch, and one minus the correlation of score and quality.
    """
    soft = 0.03 + 0.94 * targets
    entropy = F.binary_cross_entropy_with_logits(margins, soft, reduction="none")
    floor = F.binary_cross_entropy(soft, soft, reduction="none")
    fit = ((entropy - floor) * weights).sum(1).mean() / weights.sum()
    axis_sets = margins.view(-1, GROUP, margins.shape[1])
    axis_targets_ = targets.view(-1, GROUP, targets.shape[1])
    axis_gap = axis_targets_[:, :, None] - axis_targets_[:, None]
    sure = (axis_gap > 0.04).float() * axis_gap.clamp(max=0.2) * weights
    axis_order = F.softplus(-2 * (axis_sets[:, :, None] - axis_sets[:, None])) * sure
    losses = {"fit": fit, "axis_order": axis_order.sum() / (sure.sum() + 1e-6)}
    # Small gaps count nearly as much as large ones: some kinds change HaarPSI by little.
    gap = quality[:, None] - quality[None]
    group = torch.arange(len(quality)) // GROUP
    together = (group[:, None] == group[None]) & (gap > 0.01)
    inside = together.float() * (0.05 + gap.clamp(max=0.2))
    alike = (kinds[:, None] == kinds[None]) & (kinds[:, None] >= 0)
    across = (gap > 0.03).float() * (1 + 4 * alike.float())
    for (weight, _), share in zip(SCORES, SHARES, strict=True):
        score = torch.sigmoid(margins) @ share
        wrong = F.softplus(-16 * (score[:, None] - score[None]))
        a, b = score - score.mean(), quality - quality.mean()
        parts = {
            "order": (wrong * inside).sum() / (inside.sum() + 1e-6),
            "rank": (wrong * across).sum() / (across.sum() + 1e-6),
            "agreement": 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6),
        }
        for name, value in parts.items():
            losses[name] = losses.get(name, 0.0) + weight * value
    return losses


def caption_ends(student: Student, rng: random.Random, each: int) -> tuple[Tensor, Tensor]:
    """Draw `each` captions for both ends of each axis; returns two `(axes, each, D)`."""
    need = {(a, s): each for a in range(len(AXES)) for s in (1.0, -1.0)}
    texts: dict[tuple[int, float], list[str]] = {key: [] for key in need}
    left = sum(need.values())
    while left:
        caption = draw_caption(rng)
        key = (caption.axis, caption.sign)
        if caption.second < 0 and key in texts and len(texts[key]) < each:
            texts[key].append(caption.text)
            left -= 1
    ordered = [t for a in range(len(AXES)) for s in (1.0, -1.0) for t in texts[(a, s)]]
    features = student.texts(ordered).view(len(AXES), 2, each, -1)
    return features[:, 0], features[:, 1]


@torch.no_grad()
def start_from(student: Student, weights: Path) -> dict[str, Any]:
    """Load exported weights; prototypes become the mean features of the captions they stand for.

    The student may have more residual blocks than the file, at the end of each stage. They start
    as the identity (their last normalisation at zero, as in Chen, Goodfellow, Shlens, Net2Net,
    ICLR 2016, https://arxiv.org/abs/1511.05641), so the tower sees at first what the file's sees.

    Args:
        student: Changed in place.
        weights: A file that `export` wrote.

    Returns:
        What the file says about its own training.

    Raises:
        ValueError: If the file lacks more than whole blocks, or has what the student has not.
    """
    state = {name: value.float() for name, value in load_file(weights).items()}
    state["visual.attnpool.positional_embedding"] = torch.zeros(1, student.positions[1])
    lacking, surplus = student.clip.load_state_dict(state, strict=False)
    blocks = {found[0] for name in lacking if (found := BLOCK.match(name))}
    blocks -= {block for block in blocks if any(name.startswith(block) for name in state)}
    strange = [name for name in lacking if not name.startswith(tuple(blocks))] + surplus
    if strange:
        raise ValueError(f"{weights} does not fit the architecture: {', '.join(strange[:4])}")
    for block in blocks:
        nn.init.zeros_(student.clip.get_submodule(block.rstrip(".")).bn3.weight)
    student.eval()
    positive, negative = caption_ends(student, random.Random(0), 32)
    student.prototypes.copy_(torch.stack([positive.mean(1), negative.mean(1)], dim=1))
    with safe_open(weights, "pt") as file:
        facts = {name: json.loads(value) for name, value in file.metadata().items()}
    return {name: facts.get(name) for name in ("images_seen", "training_seconds", "stages", "init")}


def train(
    settings: Settings,
    cache_folder: Path,
    config: Path,
    checkpoint: Path,
    init: Path | None = None,
) -> None:
    """Run or continue one stage; the checkpoint carries all stages.

    Args:
        settings: How to train.
        cache_folder: Rendered shards.
        config: open_clip's architecture file.
        checkpoint: Read if it exists; written with the smoothed weights beside the raw ones.
        init: Exported weights to start from where there is no checkpoint.
    """
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    student = Student(config)
    log: dict[str, Any] = {"seconds": 0.0, "images": 0, "stages": {}}
    if init and not checkpoint.exists():
        log["init"] = start_from(student, init)
    smooth = deepcopy(student)
    saved: dict[str, Any] = {}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        student.load_state_dict(saved["student"])
        smooth.load_state_dict(saved["smooth"])
        log = saved["log"]
    trained = [p for n, p in student.named_parameters() if _trains(n, settings.stage)]
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    decay = [p for p in trained if p.ndim >= 2]
    plain = [p for p in trained if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    first = 0
    if saved.get("stage") == settings.stage:
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    elif settings.stage != "image":
        student.load_state_dict(smooth.state_dict())
    cache = Cache(cache_folder)
    visual = student.clip.visual
    tower = torch.compile(visual, dynamic=False) if settings.compile else visual
    moment = second_moment(smooth, cache) if settings.stage == "text" else torch.empty(0)
    if settings.stage == "readout":
        tower, pooled = visual.attnpool.c_proj, pooled_features(smooth, cache, settings.bfloat16)
    print(
        f"{settings.stage}: {len(cache.training)} groups to train on, {len(cache.validation)} to "
        f"validate, step {first} of {settings.steps}",
        flush=True,
    )
    started = began = last = time.monotonic()
    running: dict[str, float] = {}
    batches = (
        iter(lambda: (torch.empty(0), torch.empty(0)), None)
        if settings.stage in ("text", "readout")
        else cache.batches(settings, first)
    )
    for step in range(first, settings.steps):
        warm = min(1.0, (step + 1 - first) / 200)
        spent = (time.monotonic() - started) / 60
        done = max(
            step / settings.steps,
            first / settings.steps + spent / settings.minutes * (1 - first / settings.steps)
            if settings.minutes
            else 0.0,
        )
        if done >= 1:
            break
        cache.crop = settings.last_crop if done > 0.7 else 0
        fall = max(0.0, 1 - (1 - done) / settings.decay)
        rate = float(settings.learning_rate * warm * 0.5 * (1 + np.cos(np.pi * fall)))
        for group in optimiser.param_groups:
            group["lr"] = max(rate, 1e-6)
        if settings.stage == "readout":
            groups = cache.draw(np.random.default_rng([settings.seed, step]), settings.groups)
            rows = torch.from_numpy((groups[:, None] * GROUP + np.arange(GROUP)).ravel())
            images = pooled[rows]
        else:
            images, rows = next(batches)
        losses = _step_losses(student, tower, cache, settings, step, images, rows, moment)
        loss = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        with torch.no_grad():
            student.clip.logit_scale.clamp_(0, float(np.log(100.0)))
        _smooth(smooth, student, settings.stage, min(0.997, (1 + step) / (10 + step)))
        log["images"] += 0 if settings.stage == "readout" else len(images)
        for name, value in losses.items():
            running[name] = running.get(name, 0.0) + float(value.detach())
        if (step + 1) % 50 == 0:
            now = time.monotonic()
            text = " ".join(f"{k} {v / 50:.4f}" for k, v in running.items())
            print(
                f"{step + 1:6d} {50 * len(images) / (now - last):6.1f} images/s {text}", flush=True
            )
            running, last = {}, now
        if (step + 1) % settings.save_every == 0:
            log["seconds"] += time.monotonic() - began
            began = time.monotonic()
            _save(checkpoint, student, smooth, optimiser, cache, settings, step + 1, log)
            last = time.monotonic()
    else:
        step = settings.steps
    log["seconds"] += time.monotonic() - began
    _save(checkpoint, student, smooth, optimiser, cache, settings, step, log)


def _save(
    checkpoint: Path,
    student: Student,
    smooth: Student,
    optimiser: torch.optim.Optimizer,
    cache: Cache,
    settings: Settings,
    step: int,
    log: dict[str, Any],
) -> None:
    print("       " + json.dumps(validate(smooth, cache)), flush=True)
    log["stages"][settings.stage] = {"steps": step, "of": settings.steps}
    state = {
        "student": student.state_dict(),
        "smooth": smooth.state_dict(),
        "optimiser": optimiser.state_dict(),
        "stage": settings.stage,
        "step": step,
        "log": log,
    }
    torch.save(state, checkpoint.with_suffix(".tmp"))
    os.replace(checkpoint.with_suffix(".tmp"), checkpoint)


def _trains(name: str, stage: str) -> bool:
    if name.endswith("attnpool.positional_embedding"):
        return False
    visual = name.startswith(("clip.visual.", "kind_head", "clip.logit_scale"))
    if stage == "readout":
        return "c_proj" in name or name.startswith(("kind_head", "clip.logit_scale", "prototypes"))
    if stage == "image":
        return visual or name == "prototypes"
    if stage == "text":
        return not visual and name != "prototypes"
    return True


def _smooth(smooth: nn.Module, student: nn.Module, stage: str, keep: float) -> None:
    """Move the smoothed copy towards the student: trained weights and batch statistics."""
    fresh = student.state_dict()
    with torch.no_grad():
        for name, old in smooth.state_dict().items():
            if not _trains(name, stage):
                continue
            if old.dtype.is_floating_point:
                old.lerp_(fresh[name], 1 - keep)
            else:
                old.copy_(fresh[name])


def _step_losses(
    student: Student,
    tower: Callable[[Tensor], Tensor],
    cache: Cache,
    settings: Settings,
    step: int,
    images: Tensor,
    rows: Tensor,
    moment: Tensor,
) -> dict[str, Tensor]:
    """Weighted losses of one step; `moment` `(D, D)` is used by the text stage alone.

    `tower` is the student's image tower, or a compiled view of it.
    """
    rng = random.Random(settings.seed * 1_000_003 + step)
    if settings.stage == "text":
        captions = [draw_caption(rng) for _ in range(256)]
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            said = student.texts([c.text for c in captions])
        gap = said - student.meaning(captions)
        # What counts is the error in logits over real images, so weigh it by their second moment.
        logits = student.clip.logit_scale.exp() ** 2 * ((gap @ moment) * gap).sum(1).mean()
        return {"logits": 10 * logits, "words": gap.square().sum(1).mean()}
    student.clip.visual.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
        raw = tower(images)
    raw = raw.float()
    features = F.normalize(raw, dim=-1)
    scale = student.clip.logit_scale.exp()
    targets = torch.from_numpy(cache.targets[rows.numpy()])
    quality = torch.from_numpy(cache.quality[rows.numpy()])
    table = cache.table[rows.numpy()]
    kinds = torch.from_numpy(np.where(table[:, 2] < 0, table[:, 0], -1.0))
    weights = torch.tensor([HEAVY.get(name, 1.0) for name in AXIS_NAMES])
    if settings.stage in ("image", "readout"):
        ends = student.ends()
        margins = scale * features @ (ends[:, 0] - ends[:, 1]).T
        losses = image_losses(margins, targets, quality, kinds, weights)
    else:
        positive, negative = caption_ends(student, rng, 2)
        # Means of two wordings in each end, and one wording alone, see the same targets.
        several = scale * features @ (positive.mean(1) - negative.mean(1)).T
        alone = scale * features @ (positive[:, 0] - negative[:, 0]).T
        losses = image_losses(several, targets, quality, kinds, weights)
        single = image_losses(alone, targets, quality, kinds, weights)
        losses = {name: 0.5 * (losses[name] + single[name]) for name in losses}
        ends = student.ends()
        centre = scale * features @ (ends[:, 0] - ends[:, 1]).T
        losses["prototypes"] = image_losses(centre, targets, quality, kinds, weights)["fit"]
        captions = [draw_caption(rng) for _ in range(64)]
        gap = student.texts([c.text for c in captions]) - student.meaning(captions)
        losses["words"] = gap.square().sum(1).mean()
    done = torch.from_numpy(cache.kinds[rows.numpy()])
    named = F.binary_cross_entropy_with_logits(student.kind_head(raw), done)
    losses = {"kinds": named, **losses}
    factors = {"fit": 4.0, "order": 1.0, "axis_order": 0.3, "agreement": 1.0, "kinds": 20.0}
    factors["rank"] = 2.0
    return {name: factors.get(name, 1.0) * value for name, value in losses.items()}


@torch.no_grad()
def pooled_features(student: Student, cache: Cache, bfloat16: bool) -> Tensor:
    """What the last projection gets, `(rows, width)`, for whole images of the training groups."""
    student.eval()
    visual = deepcopy(student.clip.visual)
    width = visual.attnpool.c_proj.in_features
    visual.attnpool.c_proj = nn.Identity()
    visual.attnpool.c_proj.weight = torch.eye(width)
    visual.attnpool.c_proj.bias = torch.zeros(width)
    out = torch.zeros(len(cache.table), width)
    for start in range(0, len(cache.training), 16):
        images, rows = cache.read(cache.training[start : start + 16])
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out[rows] = visual(normalise(images)).float()
    return out


@torch.no_grad()
def second_moment(student: Student, cache: Cache, groups: int = 150) -> Tensor:
    """Mean outer product `(D, D)` of unit image features, over evenly spaced training groups."""
    student.eval()
    chosen = cache.training[:: max(1, len(cache.training) // groups)]
    features = []
    for start in range(0, len(chosen), 16):
        images, _ = cache.read(chosen[start : start + 16])
        features.append(F.normalize(student.clip.visual(normalise(images)), dim=-1))
    stacked = torch.cat(features)
    return stacked.T @ stacked / len(stacked)


@torch.inference_mode()
def validate(student: Student, cache: Cache, limit: int = 240) -> dict[str, Any]:
    """SRCC and ladder steps on validation photographs, by prototypes and by named pairs.

    Args:
        student: Usually the smoothed copy.
        cache: Where the validation groups are.
        limit: Groups to use.

    Returns:
        Figures by name; those named `_kinds` are within each kind.
    """
    student.eval()
    groups = cache.validation[:limit]
    features = []
    for start in range(0, len(groups), 16):
        images, _ = cache.read(groups[start : start + 16])
        edge = (images.shape[1] - student.side) // 2  # 0 but for towers of smaller views
        centres = images[:, edge : edge + student.side, edge : edge + student.side]
        features.append(F.normalize(student.clip.visual(normalise(centres)), dim=-1))
    rows = (groups[:, None] * GROUP + np.arange(GROUP)).ravel()
    scale = student.clip.logit_scale.exp()
    ends = student.ends()
    f = torch.cat(features)
    margins = scale * f @ (ends[:, 0] - ends[:, 1]).T
    quality, table = cache.quality[rows], cache.table[rows]
    ladders = table[:, 9].reshape(-1, GROUP)[:, 1] > 0
    out: dict[str, Any] = {"scale": round(float(scale), 2)}
    scores = {"axes": (torch.sigmoid(margins) @ SHARES[0]).numpy()}
    for name in ("pyiqa", "quality"):
        pairs = NAMED_PAIRS[name]
        z = student.texts([text for p in pairs for text in (p.positive, p.negative)])
        z = z.view(len(pairs), 2, -1)
        said = torch.sigmoid(scale * f @ (z[:, 0] - z[:, 1]).T)
        scores[name] = said.mean(1).numpy()
        out[f"{name}_each"] = {
            pair.name: round(float(spearmanr(said[:, n], quality)[0]), 3)
            for n, pair in enumerate(pairs)
        }
    single = table[:, 2] < 0
    for name, values in scores.items():
        steps = np.diff(values.reshape(-1, GROUP)[ladders], axis=1) < 0
        out[f"{name}_srcc"] = round(float(spearmanr(values, quality)[0]), 4)
        out[f"{name}_ladder"] = round(float(steps.mean()), 4)
        out[f"{name}_low"] = round(float(np.percentile(values, 2)), 3)
        out[f"{name}_high"] = round(float(np.percentile(values, 98)), 3)
        kinds = {
            kind: round(float(spearmanr(values[own], quality[own])[0]), 2)
            for number, kind in enumerate(ALL_KINDS)
            if (own := single & (table[:, 0] == number)).sum() > 9
        }
        out[f"{name}_kinds_mean"] = round(float(np.mean(list(kinds.values()))), 4)
        out[f"{name}_kinds"] = kinds
    for a, name in enumerate(AXIS_NAMES):
        out[name] = round(float(spearmanr(margins[:, a], cache.targets[rows, a])[0]), 3)
    return out


def export(config: Path, checkpoint: Path, output: Path, data: str, command: str) -> None:
    """Write the smoothed weights as float16 safetensors, by rename.

    Args:
        config: open_clip's architecture file.
        checkpoint: What `train` wrote.
        output: The weights file.
        data: The data packages and their versions, for the metadata.
        command: The commands that trained it, for the metadata.
    """
    student = Student(config)
    saved = torch.load(checkpoint, weights_only=True)
    student.load_state_dict(saved["smooth"])
    state = student.clip.state_dict()
    state["visual.attnpool.positional_embedding"] = torch.zeros(student.positions)
    tensors = {
        name: (value.half() if value.dtype.is_floating_point else value).contiguous().clone()
        for name, value in state.items()
    }
    log = saved["log"]
    facts = {
        "format_version": FORMAT_VERSION,
        "architecture": json.loads(config.read_text()),
        "trained_by": command,
        "data": data,
        "images_seen": log["images"],
        "training_seconds": round(log["seconds"]),
        "stages": log["stages"],
        "init": log.get("init"),
        "date": datetime.now(UTC).date().isoformat(),
    }
    temporary = output.with_suffix(".tmp")
    save_file(tensors, temporary, {key: json.dumps(value) for key, value in facts.items()})
    os.replace(temporary, output)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
