"""Train the embedded model `tiny`: `python -m tools.train_tiny render`, then `train`, `export`.

See docs/tiny-history.md for what comes out. Every step can be stopped and started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def render(arguments: argparse.Namespace) -> None:
    """Render shards of the cache; several processes may share them by `--worker I/N`."""
    import torch

    from tools.tiny.render import Scenes, render_shard

    torch.set_num_threads(1)
    worker, workers = (int(part) for part in arguments.worker.split("/"))
    arguments.cache.mkdir(parents=True, exist_ok=True)
    scenes = Scenes(arguments.photos)
    print(f"{len(scenes.photos)} photographs, {len(scenes.stamps)} stamps", flush=True)
    for shard in range(arguments.first + worker, arguments.first + arguments.shards, workers):
        path = render_shard(scenes, shard, arguments.groups, arguments.seed, arguments.cache)
        print(path.name, flush=True)


def train(arguments: argparse.Namespace) -> None:
    """Run or continue one stage of training."""
    from tools.tiny.train import Settings, train

    names = Settings.__dataclass_fields__
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    train(settings, arguments.cache, arguments.config, arguments.checkpoint, arguments.init)


def export(arguments: argparse.Namespace) -> None:
    """Write the weights file."""
    from tools.tiny.photos import used_packages
    from tools.tiny.train import export

    export(
        arguments.config,
        arguments.checkpoint,
        arguments.output,
        ", ".join(used_packages(arguments.photos)),
        "python -m tools.train_tiny render; train image, readout, text; export (see docs/tiny-history.md)",
    )


def main() -> None:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("render", help="photos -> cache of distorted images")
    sub.add_argument("--photos", type=Path, default=Path("photos"), help="unpacked packages")
    sub.add_argument("--cache", type=Path, default=Path("tiny-cache"))
    sub.add_argument("--first", type=int, default=0, help="first shard")
    sub.add_argument("--shards", type=int, default=100)
    sub.add_argument("--groups", type=int, default=100, help="groups of six images in a shard")
    sub.add_argument("--worker", default="0/1", help="I/N: this process renders every N-th shard")
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=render)
    config = Path("iqa_core/weights/tiny.json")
    sub = commands.add_parser("train", help="cache -> checkpoint, one stage")
    sub.add_argument("stage", choices=("image", "readout", "text", "both"))
    sub.add_argument("--cache", type=Path, default=Path("tiny-cache"))
    sub.add_argument("--config", type=Path, default=config, help="open_clip architecture")
    sub.add_argument("--checkpoint", type=Path, default=Path("tiny-cache/checkpoint.pt"))
    sub.add_argument("--steps", type=int, default=2000)
    sub.add_argument("--learning-rate", type=float, default=2e-3)
    sub.add_argument("--groups", type=int, default=16, help="groups of six images in a batch")
    sub.add_argument("--crop", type=int, default=160)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, default=2)
    sub.add_argument("--minutes", type=float, default=0, help="wall time; 0: no limit")
    sub.add_argument("--last-crop", type=int, default=0, help="crop in the last 30 %%; 0: same")
    sub.add_argument("--decay", type=float, default=1.0, help="share in which the rate falls")
    sub.add_argument("--bfloat16", action="store_true", help="for CPUs with AMX")
    sub.add_argument("--compile", action="store_true", help="torch.compile the image tower")
    sub.add_argument("--init", type=Path, help="exported weights to start from")
    sub.add_argument("--save-every", type=int, default=500)
    sub.set_defaults(run=train)
    sub = commands.add_parser("export", help="checkpoint -> float16 safetensors")
    sub.add_argument("--photos", type=Path, default=Path("photos"), help="for package versions")
    sub.add_argument("--config", type=Path, default=config, help="open_clip architecture")
    sub.add_argument("--checkpoint", type=Path, default=Path("tiny-cache/checkpoint.pt"))
    sub.add_argument("--output", type=Path, default=config.with_suffix(".safetensors"))
    sub.set_defaults(run=export)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
