"""Options that several commands share, grouped by the commands that have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iqa_core.limits import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from iqa_core.prompts.pairs import DEFAULT_PAIRS, NAMED_PAIRS

from .options import option

__all__ = [
    "ColumnOptions",
    "CropOptions",
    "ImageOptions",
    "OutputOptions",
    "PromptOptions",
    "RescoreOptions",
    "ScoreOptions",
]

#: The statuses of ``iqa_core.errors.Status`` but ``ok``; a test holds the two together.
RetryKind = Literal[
    "invalid_row",
    "unreadable",
    "denied",
    "not_found",
    "forbidden",
    "throttled",
    "timeout",
    "network",
    "empty",
    "unsupported",
    "decode_error",
    "too_large",
    "model_error",
]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Options of every command that writes rows."""

    output: str = option(
        help="folder to write to, local or remote; the same command again resumes",
        metavar="O",
        path=True,
    )
    max_error_rate: float = option(
        0.05,
        help="exit with status 3 if a larger share of rows could not be scored; the output is "
        "complete anyway",
        metavar="X",
        minimum=0,
        maximum=1,
    )
    lease_seconds: float = option(
        30.0,
        help="after a crash on another machine, a new run may take over the output after this many "
        "seconds",
        metavar="S",
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """Options of every command that scores: the prompts and their scale."""

    pairs: str = option(
        DEFAULT_PAIRS,
        help=f"base prompt pairs: {', '.join(NAMED_PAIRS)}, or a TOML file with [[pair]] tables",
        metavar="NAME|FILE",
        exclusive="prompts",
        path=True,
    )
    prompts: str | None = option(
        None,
        help="prompt file of `iqa train`, instead of --pairs",
        metavar="P.safetensors",
        exclusive="prompts",
        path=True,
    )
    logit_scale: float | None = option(
        None,
        help="factor applied to cosine differences (default: the model's own; 1 gives plain cosines)",
        metavar="G",
        above=0,
    )


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """How many views of an image are scored."""

    crops: int = option(
        1,
        help="views of each image at the model's resolution: 1, or the whole image and a grid of crops of "
        "its details (5: 2 x 2, 10: 3 x 3, 17, 26), of which mean, lowest and spread are written",
        metavar="N",
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Options of every command that writes scores."""

    calibration: str | None = option(
        None,
        help="file of `iqa calibrate`: also write the columns mos, mos_low and mos_high",
        metavar="C.json",
        path=True,
    )
    reasons: bool = option(
        False,
        help="also write the columns worst_pair (that with the lowest score) and spread (over the pairs)",
    )


@dataclass(frozen=True, kw_only=True)
class RescoreOptions(OutputOptions, PromptOptions, ColumnOptions):
    """Options of scoring from features: no image is read, and Ray is not used."""

    features: str = option(
        help="output of `iqa embed` or `iqa score --embeddings`; or features of another program: .npy, "
        ".npz or Parquet, a file, a folder or a glob",
        metavar="F",
        path=True,
    )
    features_column: str | None = option(
        None,
        help="column of float lists (Parquet), or array (.npz), that holds the features (default: the "
        "only one)",
        metavar="NAME",
    )
    metadata: str | None = option(
        None,
        help="Parquet files with a row for each feature of another program, in the same order: identity "
        "and kept columns (default: the features' own file)",
        metavar="M",
        path=True,
    )
    uri_column: str | None = option(
        None, help="column of the metadata that names the images (default: uri)", metavar="COLUMN"
    )
    model: str | None = option(
        None,
        help="the model whose image tower made features of another program, as of `iqa score`; our own "
        "name theirs",
        metavar="MODEL",
    )
    normalise: bool = option(
        False,
        help="divide features of another program by their length; without it another length than 1 is "
        "refused",
    )
    check_images: str | None = option(
        None,
        help="encode the first N images that the metadata name, or those of a manifest, and refuse "
        "features that are not --model's",
        metavar="N|MANIFEST",
        path=True,
    )
    keep: tuple[str, ...] = option(
        (),
        help="columns to carry into the output (default: all that the features carry)",
        metavar="COLUMN",
    )


@dataclass(frozen=True, kw_only=True)
class ImageOptions(OutputOptions):
    """Options of every command that reads images: manifest, model, resources and fetching."""

    manifest: str = option(
        help="Parquet file, glob or folder with a uri or an image column, local or remote",
        metavar="M",
        path=True,
    )
    model: str = option(
        "tiny",
        help="tiny (embedded), NAME/TAG as in open_clip (such as RN50/openai), hf-hub:ORG/REPO, "
        "NAME@FILE with local weights, or PREFIX:ARGUMENT for an encoder of another package (entry points "
        "of the group iqa.encoders)",
    )
    resolution: Literal["model", "native"] = option(
        "model", help="resize to the model's input, or keep each image's size (ResNets only)"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        help="precision of the image tower; auto takes that of the output's existing rows, else fp16 on "
        "GPUs and fp32 on CPUs",
    )
    decode: Literal["fast", "exact", "gpu"] = option(
        "fast",
        help="fast uses JPEG's scaled decoding; exact equals open_clip's transform; gpu leaves JPEGs to "
        "the scoring actors' GPUs (torchcodec)",
    )
    batch_size: int | None = option(
        None,
        help="images in one forward pass (default: on GPUs what a measurement at the start finds fastest, "
        "32 on CPUs)",
        metavar="N",
        minimum=1,
    )
    compile: bool = option(
        False,
        help="on GPUs: compile the image tower for full batches (torch.compile), which takes each actor "
        "about a minute at its start, while images are decoded",
    )
    num_actors: int | None = option(
        None,
        help="maximum number of scoring actors (default: one for each GPU, or else for each CPU)",
        metavar="N",
        minimum=1,
    )
    gpus: str = option(
        "auto",
        help="GPUs to score on: auto takes those that the cluster has or its autoscaler can start, N "
        "also waits for the first of them, 0 scores on CPUs",
        metavar="auto|N",
    )
    wait_minutes: float | None = option(
        None,
        help="end a run that waits for a node that could hold a scoring actor for longer than this "
        "(default: wait until there is one)",
        metavar="M",
        above=0,
    )
    stall_minutes: float = option(
        30.0,
        help="begin what is left again if nothing moved for longer than this, as after a task that Ray "
        "lost with its node; a wait for nodes does not count",
        metavar="M",
        above=0,
    )
    gpus_per_actor: float | None = option(
        None, help="GPUs per actor (default: 1 on GPUs)", metavar="X", minimum=0
    )
    cpus_per_actor: float | None = option(
        None, help="CPUs and threads per actor (default: 1)", metavar="X", above=0
    )
    decode_on: tuple[str, ...] = option(
        (),
        help="nodes that decode images for GPUs: KEY=VALUE, a label that they have, or NAME:AMOUNT, a "
        "custom resource of which each task takes that much (default: nodes labelled iqa-stage=decode, "
        "then nodes without GPUs, then any)",
        metavar="WHERE",
    )
    score_on: tuple[str, ...] = option(
        (),
        help="nodes of the scoring actors, likewise (default: nodes labelled iqa-stage=score, then any)",
        metavar="WHERE",
    )
    shared_filesystem: bool = option(
        False,
        help="say that all nodes of the cluster see the same files: allows local paths on several nodes",
    )
    keep: tuple[str, ...] = option(
        (), help="columns of the manifest to carry into the output", metavar="COLUMN"
    )
    hash: bool = option(
        False,
        help="also write a hash of each image's bytes, by which `iqa duplicates` finds equal files",
    )
    descriptors: bool = option(
        False,
        help="also write a description of what each image shows (168 bytes), by which `iqa duplicates` "
        "finds near copies",
    )
    dedupe: bool = option(
        False,
        help="do not decode and encode an image again whose bytes the same worker met recently; the output "
        "is the same",
    )
    timeout: float = option(
        30.0, help="seconds for one attempt to fetch an image", metavar="S", above=0
    )
    retries: int = option(
        3,
        help="further attempts after throttling, time-outs and network errors",
        metavar="N",
        minimum=0,
    )
    max_bytes: int = option(
        DEFAULT_MAX_BYTES, help="maximum size of an encoded image in bytes", metavar="N", minimum=1
    )
    max_pixels: int = option(
        DEFAULT_MAX_PIXELS,
        help="maximum width x height of an image in pixels",
        metavar="N",
        minimum=1,
    )
    allow_scheme: tuple[str, ...] = option(
        (),
        help="further URI schemes that the manifest may name, such as zip or sftp (default: http, "
        "https and object stores; local files only if the manifest is local)",
        metavar="S",
    )
    allow_prefix: tuple[str, ...] = option(
        (),
        help="read only images whose URI begins with one of these or that lie beside the manifest; also "
        "allows local files and hosts of a private network",
        metavar="URI",
        path=True,
    )
    commit_seconds: float = option(
        30.0,
        help="seconds between part files, the first comes soon after the first rows; a crash loses "
        "at most this much finished work",
        metavar="S",
        above=0,
    )
    retry_errors: tuple[RetryKind, ...] = option(
        (), help="retry rows with these statuses, such as timeout or network", metavar="KIND"
    )
    skip_damaged: bool = option(
        False,
        help="score the rest of a manifest file whose data are damaged; the lost rows get the status "
        "unreadable",
    )
    shard: str | None = option(
        None,
        help="do only part K of N of the manifest's rows, K from 0 to N-1: N such runs, also at the same "
        "time, fill one output",
        metavar="K/N",
    )
    cpu_price: float | None = option(
        None,
        help="price of one CPU for an hour, in any currency; gives the cost so far (`iqa status`, metrics)",
        metavar="X",
        minimum=0,
    )
    gpu_price: float | None = option(
        None, help="price of one GPU for an hour", metavar="X", minimum=0
    )
    address: str | None = option(
        None,
        help="Ray cluster (default: the one that this job runs in, else a local one)",
        metavar="ADDRESS",
    )


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(CropOptions, PromptOptions, ColumnOptions, ImageOptions):
    """Options of a run that scores images."""

    embeddings: bool = option(False, help="also write the image features")
