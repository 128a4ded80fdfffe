"""Options that several commands share, grouped by the commands that have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iqa_core.limits import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from iqa_core.prompts.pairs import DEFAULT_PAIRS, NAMED_PAIRS

from .options import option

__all__ = ["ColumnOptions", "ImageOptions", "OutputOptions", "PromptOptions", "RescoreOptions"]

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
        help="folder to write to, local or remote; the same command again resumes", metavar="O"
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
    )
    prompts: str | None = option(
        None,
        help="prompt file of `iqa train`, instead of --pairs",
        metavar="P.safetensors",
        exclusive="prompts",
    )
    logit_scale: float | None = option(
        None,
        help="factor applied to cosine differences (default: the model's own; 1 gives plain cosines)",
        metavar="G",
        above=0,
    )


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Options of every command that writes scores."""

    calibration: str | None = option(
        None,
        help="file of `iqa calibrate`: also write the columns mos, mos_low and mos_high",
        metavar="C.json",
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
    )
    features_column: str | None = option(
        None,
        help="column of float lists (Parquet), or array (.npz), that holds the features (default: the "
        "only one)",
        metavar="NAME",
    )
    metadata: str | None = option(
        None,
        help="Parquet files with a row for each foreign feature, in the same order: identity and kept "
        "columns (default: the features' own file)",
        metavar="M",
    )
    uri_column: str | None = option(
        None, help="column of the metadata that names the images (default: uri)", metavar="COLUMN"
    )
    model: str | None = option(
        None,
        help="the model whose image tower made foreign features, as of `iqa score`; our own name theirs",
        metavar="MODEL",
    )
    normalise: bool = option(
        False,
        help="divide foreign features by their length; without it another length than 1 is refused",
    )
    check_images: str | None = option(
        None,
        help="encode the first N images that the metadata name, or those of a manifest, and refuse foreign "
        "features that are not --model's",
        metavar="N|MANIFEST",
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
    decode: Literal["fast", "exact"] = option(
        "fast", help="fast uses JPEG's scaled decoding; exact equals open_clip's transform"
    )
    batch_size: int | None = option(
        None,
        help="images in one forward pass (default: on GPUs what a measurement at the start finds fastest, "
        "32 on CPUs)",
        metavar="N",
        minimum=1,
    )
    num_actors: int | None = option(
        None,
        help="maximum number of scoring actors (default: one for each GPU, or else for each CPU)",
        metavar="N",
        minimum=1,
    )
    gpus_per_actor: float | None = option(
        None,
        help="GPUs per actor; 1 waits for GPUs, 0 scores on CPUs (default: 1 if the cluster has GPUs or "
        "can start some)",
        metavar="X",
        minimum=0,
    )
    cpus_per_actor: float | None = option(
        None, help="CPUs and threads per actor (default: 1)", metavar="X", above=0
    )
    keep: tuple[str, ...] = option(
        (), help="columns of the manifest to carry into the output", metavar="COLUMN"
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
    address: str | None = option(
        None,
        help="Ray cluster (default: the one that this job runs in, else a local one)",
        metavar="ADDRESS",
    )
