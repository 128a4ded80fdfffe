"""The official releases of the field's benchmarks, read as they unpack, without conversion.

Each reader says where its layout is from: the release itself, or public code that reads it. What is
certain about each, its scale, its direction and its traps are in docs/releases.md.

``mos`` is on the release's own scale and in its own direction; ``mos_normalised`` is in [0, 1] and
higher for better images: DMOS are turned round. It runs over the nominal scale, widened where an
opinion lies outside of it, as some of LIVE's do.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.io import loadmat

from iqa_core.columns import IMAGE_ID, URI
from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder, has_scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["RELEASES", "Release", "ReleaseTable", "read_release", "recognise_release"]


@dataclass
class _Rows:
    """What a reader found: one entry for each image, and what to tell the user."""

    images: list[str] = field(default_factory=list)  # as the release's label file names them
    mos: list[float] = field(default_factory=list)
    split: list[str | None] = field(default_factory=list)
    distortion: list[str | None] = field(default_factory=list)
    level: list[int | None] = field(default_factory=list)
    reference: list[str | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        image: str,
        mos: float,
        *,
        split: str | None = None,
        distortion: str | None = None,
        level: int | None = None,
        reference: str | None = None,
    ) -> None:
        self.images.append(image)
        self.mos.append(mos)
        self.split.append(split)
        self.distortion.append(distortion)
        self.level.append(level)
        self.reference.append(reference)


@dataclass(frozen=True)
class Release:
    """How to read one benchmark.

    Attributes:
        title: Its name as people write it.
        labels: Files that it is known by, relative to its folder; of a group in one entry, one.
        images: Folders of images, by preference; an empty name is the release's own folder.
        scale: The worst and the best nominal opinion; None takes the release's own extremes.
        lower_is_better: Whether opinions are DMOS.
        read: Reads the labels, given the folder and the label files that are there.
        columns: Columns by which a CSV file of a name that could be anybody's is known.
    """

    title: str
    labels: tuple[tuple[str, ...], ...]
    images: tuple[str, ...]
    scale: tuple[float, float] | None
    lower_is_better: bool
    read: Callable[[Folder, Sequence[str]], _Rows]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ReleaseTable:
    """A release as a manifest.

    Attributes:
        name: Key of :data:`RELEASES`.
        table: ``uri``, ``image_id``, ``mos``, ``mos_normalised``, and those of ``split``,
            ``distortion``, ``level`` and ``reference`` that the release has.
        notes: What was left out, and what to mind, a line each.
    """

    name: str
    table: pa.Table
    notes: tuple[str, ...]


def recognise_release(path: str) -> str | None:
    """Return which release a folder is, by its files of labels, or None.

    Raises:
        InputError: If it holds several.
    """
    folder = Folder.of(path)
    found = []
    for name, release in RELEASES.items():
        labels = _labels_of(folder, release)
        if labels and (not release.columns or _has_columns(folder, labels[0], release.columns)):
            found.append(name)
    if len(found) > 1:
        raise InputError(
            f"{path} holds several releases: name one with --release: {', '.join(found)}"
        )
    return found[0] if found else None


def read_release(path: str, name: str) -> ReleaseTable:
    """Read a release's labels and find its images.

    Args:
        path: Its folder, or the one that it was unpacked in, local or on any fsspec filesystem.
        name: Key of :data:`RELEASES`.

    Returns:
        The manifest.

    Raises:
        InputError: If a file, a column or an image is not where the release has it.
    """
    release = RELEASES[name]
    above = Folder.of(path)
    if not above.fs.isdir(above.root):
        raise InputError(f"{path} is no folder: give the one that {release.title} was unpacked to")
    located = _locate(above, release)
    if located is None:
        wanted = " and ".join(" or ".join(group) for group in release.labels)
        raise InputError(
            f"{path} is not {release.title} as it unpacks: it has no {wanted}: give the folder that "
            "holds it"
        )
    folder, labels = located
    try:
        rows = release.read(folder, labels)
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{folder.uri}: {', '.join(labels)} can't be read as that of {release.title} ({told}): "
            "unpack the release again"
        ) from error
    wrong = next((i for i, mos in enumerate(rows.mos) if not math.isfinite(mos)), None)
    if not rows.mos or wrong is not None:
        what = "no image" if wrong is None else f"no opinion of {rows.images[wrong]}"
        raise InputError(f"{folder.uri}: {', '.join(labels)} has {what}: unpack the release again")
    paths = _find_images(folder, release, rows.images)
    return ReleaseTable(name, _table(release, folder, rows, paths), tuple(rows.notes))


def _table(release: Release, folder: Folder, rows: _Rows, paths: Sequence[str]) -> pa.Table:
    uris = [folder.path(path) for path in paths]
    if has_scheme(folder.uri):
        uris = [folder.fs.unstrip_protocol(uri) for uri in uris]
    mos = np.array(rows.mos, dtype=np.float64)
    low, high = float(mos.min()), float(mos.max())
    if release.scale is not None:
        low, high = min(low, *release.scale), max(high, *release.scale)
    normalised = (mos - low) / (high - low) if high > low else np.zeros_like(mos)
    columns: dict[str, Any] = {
        URI: pa.array(uris, pa.string()),
        IMAGE_ID: pa.array(rows.images, pa.string()),
        "mos": mos,
        "mos_normalised": 1 - normalised if release.lower_is_better else normalised,
    }
    optional: dict[str, tuple[list[Any], pa.DataType]] = {
        "split": (rows.split, pa.string()),
        "distortion": (rows.distortion, pa.string()),
        "level": (rows.level, pa.int64()),
        "reference": (rows.reference, pa.string()),
    }
    for column, (values, kind) in optional.items():
        if any(value is not None for value in values):
            columns[column] = pa.array(values, kind)
    return pa.table(columns)


# Files --------------------------------------------------------------------------------------------


def _locate(above: Folder, release: Release) -> tuple[Folder, list[str]] | None:
    """Return the release's folder and its label files: here, or in a folder of this folder."""
    labels = _labels_of(above, release)
    if labels:
        return above, labels
    entries = above.fs.ls(above.root, detail=True)
    names = [one["name"].rstrip("/") for one in entries if one["type"] == "directory"]
    for name in sorted(one.rpartition("/")[2] for one in names):
        folder = Folder(f"{above.uri.rstrip('/')}/{name}", above.fs, above.path(name))
        labels = _labels_of(folder, release)
        if labels:
            return folder, labels
    return None


def _labels_of(folder: Folder, release: Release) -> list[str]:
    """Return the label files that are there, one of each group; none if a group has none."""
    found = [next(filter(folder.exists, group), "") for group in release.labels]
    return found if all(found) else []


def _find_images(folder: Folder, release: Release, names: Sequence[str]) -> list[str]:
    """Return where the images are below the folder; case is as each release's archive has it."""
    root = folder.root + "/"
    try:
        here = [path[len(root) :] for path in folder.fs.find(folder.root) if path.startswith(root)]
    except OSError as error:
        raise InputError(f"{folder.uri} can't be listed: {error}") from error
    by_path = {path.lower(): path for path in here}
    wanted = [name.lower() for name in names]
    # one folder for all: two sizes of the same images must not mix
    for base in (base.lower() for base in release.images):
        found = [by_path.get(base + name) for name in wanted]
        if any(found):
            break
    else:  # folders of other names, where a file's own name leaves no doubt
        by_name: dict[str, list[str]] = defaultdict(list)
        for path in here:
            by_name[path.lower().rpartition("/")[2]].append(path)
        found = [_only(by_name[name.rpartition("/")[2]], name) for name in wanted]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise InputError(
            f"{folder.uri} lacks {len(missing):,} of the {len(names):,} images of {release.title}, such "
            f"as {missing[0]}, expected in {' or '.join(base or './' for base in release.images)}: "
            "unpack all of it"
        )
    return [path for path in found if path is not None]


def _only(paths: Sequence[str], name: str) -> str | None:
    ending = [path for path in paths if f"/{path.lower()}".endswith(f"/{name}")]
    return ending[0] if len(ending) == 1 else None


def _csv(folder: Folder, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file that has these columns, without spaces around."""
    text = folder.read(name).decode("utf-8-sig")
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    have = [(one or "").strip() for one in reader.fieldnames or []]
    reader.fieldnames = have
    _check_columns(folder, name, columns, have)
    return [{k: (v or "").strip() for k, v in row.items() if isinstance(v, str)} for row in reader]


def _has_columns(folder: Folder, name: str, columns: Sequence[str]) -> bool:
    try:
        _csv(folder, name, columns)
    except (OSError, ValueError, csv.Error):
        return False
    return True


def _check_columns(folder: Folder, name: str, wanted: Sequence[str], have: Iterable[str]) -> None:
    have = list(have)
    missing = [one for one in wanted if one not in have]
    if missing:
        raise InputError(
            f"{folder.uri}: {name} has no column {missing[0]!r}, but {', '.join(have) or 'none'}: is it "
            "the release's own file?"
        )


def _xlsx(folder: Folder, name: str, columns: Sequence[str], sheet: str | None = None) -> list[Any]:
    """Return the rows below the first row that holds all the columns' names, as tuples of these."""
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            f"{folder.uri}: {name} needs openpyxl: pip install 'distributed-iqa[releases]'"
        ) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(folder.read(name)), read_only=True, data_only=True)
    except Exception as error:  # zipfile's, XML's, openpyxl's own
        raise ValueError(f"no .xlsx workbook: {error}") from error
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise InputError(
                f"{folder.uri}: {name} has the sheets {', '.join(book.sheetnames)}, but not {sheet}: is "
                "it the release's own file?"
            )
        rows = list((book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True))
    finally:
        book.close()
    for i, row in enumerate(rows):
        texts = ["" if cell is None else str(cell).strip() for cell in row]
        if all(column in texts for column in columns):
            places = [texts.index(column) for column in columns]
            body = [[row[k] if k < len(row) else None for k in places] for row in rows[i + 1 :]]
            return [one for one in body if one[0] is not None]
    first = next((row for row in rows if any(cell is not None for cell in row)), ())
    _check_columns(folder, name, columns, [str(cell).strip() for cell in first if cell is not None])
    raise ValueError("its columns' names are not in one row")


def _mat(folder: Folder, name: str, variables: Sequence[str]) -> dict[str, list[Any]]:
    """Return variables of a MATLAB file, flat; cells of text as text."""
    try:
        held = loadmat(io.BytesIO(folder.read(name)))  # type: ignore[arg-type]
    except (ValueError, NotImplementedError, TypeError) as error:
        raise ValueError(f"no MATLAB file up to version 7: {error}") from error
    _check_columns(folder, name, variables, (one for one in held if not one.startswith("__")))
    return {one: [_cell(value) for value in np.asarray(held[one]).ravel()] for one in variables}


def _cell(value: Any) -> Any:  # noqa: ANN401 - whatever MATLAB puts into a cell
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    return value.item() if isinstance(value, np.generic) else value


# One reader for each ------------------------------------------------------------------------------


def _read_koniq(folder: Folder, labels: Sequence[str]) -> _Rows:
    """KonIQ-10k, from subpic/koniq's metadata/koniq10k_distributions_sets.csv and the release's CSV.

    The first has the official split, and as MOS what the second calls MOS_zscore, of 1 to 100; the
    second's own MOS is of 1 to 5.
    """
    rows = _Rows()
    if labels[0] == "koniq10k_distributions_sets.csv":
        names = {"training": "train", "validation": "validation", "test": "test"}
        for row in _csv(folder, labels[0], ("image_name", "MOS", "set")):
            rows.add(row["image_name"], float(row["MOS"]), split=names[row["set"]])
        return rows
    for row in _csv(folder, labels[0], ("image_name", "MOS_zscore")):
        rows.add(row["image_name"], float(row["MOS_zscore"]))
    rows.notes.append(
        "no official split: it is in koniq10k_distributions_sets.csv of github.com/subpic/koniq"
    )
    return rows


_CLIVE_IMAGES, _CLIVE_TRAINING = 1169, 7


def _read_clive(folder: Folder, labels: Sequence[str]) -> _Rows:
    """LIVE In the Wild Image Quality Challenge, from its readme as quoted in public loaders.

    AllImages_release.mat names 1,169 images, of which the first seven (in Images/trainingImages) only
    showed subjects what to do; hyperIQA's loader, for one, starts at the eighth.
    """
    names = _mat(folder, labels[0], ["AllImages_release"])["AllImages_release"]
    mos = _mat(folder, labels[1], ["AllMOS_release"])["AllMOS_release"]
    if len(names) != _CLIVE_IMAGES or len(mos) != _CLIVE_IMAGES:
        raise InputError(
            f"{folder.uri}: {labels[0]} names {len(names):,} images and {labels[1]} rates {len(mos):,}, "
            f"but the release has {_CLIVE_IMAGES:,} in both, of which the first {_CLIVE_TRAINING} are "
            "training examples: unpack it again"
        )
    rows = _Rows(notes=[f"the first {_CLIVE_TRAINING} images are training examples: left out"])
    for name, value in list(zip(names, mos, strict=True))[_CLIVE_TRAINING:]:
        rows.add(str(name), float(value))
    return rows


def _read_spaq(folder: Folder, labels: Sequence[str]) -> _Rows:
    """SPAQ, from the columns that pyiqa's and ARNIQA's loaders read."""
    rows = _Rows(
        notes=[
            "published results resize the shorter side to 512; these are the files as they are, of "
            "up to 20 megapixels"
        ]
    )
    for name, mos in _xlsx(folder, labels[0], ("Image name", "MOS")):
        rows.add(str(name).strip(), float(mos))
    return rows


def _read_flive(folder: Folder, labels: Sequence[str]) -> _Rows:
    """FLIVE (PaQ-2-PiQ, LIVE-FB), from baidut/PaQ-2-PiQ's database/labels_image.csv and labels640.csv.

    The test set is of the images with a side above 640 pixels, which their label file lists. The
    validation set is marked in labels<=640_padded.csv. Both as pyiqa's script reads them.
    """
    table = _csv(folder, labels[0], ("name", "mos"))
    held_out: dict[str, str] = {}
    for base in ("", "database/"):
        for name in ("labels<=640_padded.csv", "labels=640_padded.csv"):
            if folder.exists(base + name):
                for row in _csv(folder, base + name, ("name_image", "is_valid")):
                    if row["is_valid"].lower() in ("true", "1", "1.0"):
                        held_out[row["name_image"]] = "validation"
        for name in ("labels>640.csv", "labels640.csv"):
            if folder.exists(base + name):
                for row in _csv(folder, base + name, ("name_image",)):
                    held_out[row["name_image"]] = "test"
    rows = _Rows()
    for row in table:
        split = held_out.get(row["name"], "train") if held_out else None
        rows.add(row["name"], float(row["mos"]), split=split)
    parts = set(held_out.values())
    if parts != {"validation", "test"}:
        lacking = " and ".join(sorted({"validation", "test"} - parts))
        rows.notes.append(
            f"no official {lacking} split: labels<=640_padded.csv and labels>640.csv are not there"
        )
    return rows


def _kind(names: str, number: str) -> str:
    """Return the distortion that a file name's number, from 01, stands for."""
    known = names.split(", ")
    if not 1 <= int(number) <= len(known):
        raise ValueError(f"distortion {number} is none of the {len(known)}")
    return known[int(number) - 1]


_KADID = (
    "gaussian blur, lens blur, motion blur, color diffusion, color shift, color quantization, "
    "color saturation 1, color saturation 2, jpeg2000, jpeg, white noise, "
    "white noise in color component, impulse noise, multiplicative noise, denoise, brighten, darken, "
    "mean shift, jitter, non-eccentricity patch, pixelate, quantization, color block, high sharpen, "
    "contrast change"
)


_KADID_COLUMNS = ("dist_img", "ref_img", "dmos")


def _read_kadid(folder: Folder, labels: Sequence[str]) -> _Rows:
    """KADID-10k, from its dmos.csv, whose values are of 1 to 5 and rise with quality."""
    rows = _Rows(notes=["the column dmos of dmos.csv rises with quality: it is taken as MOS"])
    for row in _csv(folder, labels[0], _KADID_COLUMNS):
        name = row["dist_img"]
        _, kind, level = name.rpartition(".")[0].split("_")
        rows.add(
            name,
            float(row["dmos"]),
            distortion=_kind(_KADID, kind),
            level=int(level),
            reference=row["ref_img"],
        )
    return rows


_TID = (
    "additive gaussian noise, additive noise in color components, spatially correlated noise, "
    "masked noise, high frequency noise, impulse noise, quantization noise, gaussian blur, "
    "image denoising, jpeg, jpeg2000, jpeg transmission errors, jpeg2000 transmission errors, "
    "non eccentricity pattern noise, local block-wise distortions, mean shift, contrast change, "
    "change of color saturation, multiplicative gaussian noise, comfort noise, "
    "lossy compression of noisy images, image color quantization with dither, "
    "chromatic aberrations, sparse sampling and reconstruction"
)


def _read_tid2013(folder: Folder, labels: Sequence[str]) -> _Rows:
    """TID2013, from the lines of its mos_with_names.txt: an opinion, a space, I01_01_1.bmp."""
    rows = _Rows()
    for line in folder.read(labels[0]).decode("ascii").splitlines():
        if not line.strip():
            continue
        mos, name = line.split()
        image, kind, level = name.rpartition(".")[0].split("_")
        rows.add(
            name,
            float(mos),
            distortion=_kind(_TID, kind),
            level=int(level),
            reference=f"{image.upper()}.BMP",
        )
    return rows


_CSIQ = {
    "noise": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg2000": ("jpeg2000", "jpeg2000"),
}


def _read_csiq(folder: Folder, labels: Sequence[str]) -> _Rows:
    """CSIQ, from the sheet all_by_image of csiq.DMOS.xlsx, whose table begins at D4."""
    rows = _Rows()
    columns = ("image", "dst_type", "dst_lev", "dmos")
    for image, kind, level, dmos in _xlsx(folder, labels[0], columns, "all_by_image"):
        if dmos is None:
            continue
        base, token = _CSIQ[str(kind).replace(" ", "")]
        # a picture named 1600 is a number to a spreadsheet
        name = str(int(image)) if isinstance(image, int | float) else str(image).strip()
        rows.add(
            f"{base}/{name}.{token}.{int(level)}.png",
            float(dmos),
            distortion=base,
            level=int(level),
            reference=f"{name}.png",
        )
    return rows


_LIVE = (("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174))


def _read_live(folder: Folder, labels: Sequence[str]) -> _Rows:
    """LIVE IQA release 2, from its readme's order of images as public loaders have it.

    Values are one after the other for jp2k, jpeg, wn, gblur and fastfading; where ``orgs`` is 1 the
    image is the undistorted reference once more. dmos_realigned.mat (``dmos_new``) is preferred to
    dmos.mat, as by the authors since 2006.
    """
    variable = "dmos_new" if labels[0] == "dmos_realigned.mat" else "dmos"
    held = _mat(folder, labels[0], [variable, "orgs"])
    references = _mat(folder, labels[1], ["refnames_all"])["refnames_all"]
    images = [(kind, f"{kind}/img{i}.bmp") for kind, n in _LIVE for i in range(1, n + 1)]
    sizes = {len(held[variable]), len(held["orgs"]), len(references)}
    if sizes != {len(images)}:
        raise InputError(
            f"{folder.uri}: {labels[0]} and {labels[1]} have {', '.join(map(str, sorted(sizes)))} "
            f"values, but the release has {len(images)} images: unpack it again"
        )
    rows = _Rows()
    for (kind, name), dmos, original, reference in zip(
        images, held[variable], held["orgs"], references, strict=True
    ):
        if not original:
            rows.add(name, float(dmos), distortion=kind, reference=str(reference))
    count = len(images) - len(rows.images)
    rows.notes.append(f"{count} undistorted copies of the references are left out")
    return rows


def _read_agiqa_1k(folder: Folder, labels: Sequence[str]) -> _Rows:
    """AGIQA-1K, from its readme and the columns that public loaders of AIGC_MOS_Zscore.xlsx read."""
    rows = _Rows()
    for name, mos in _xlsx(folder, labels[0], ("Image", "MOS")):
        rows.add(str(name).strip(), float(mos))
    return rows


_AGIQA_3K = ("name", "prompt", "mos_quality", "mos_align")


def _read_agiqa_3k(folder: Folder, labels: Sequence[str]) -> _Rows:
    """AGIQA-3K, from lcysyzxdxc/AGIQA-3k-Database's data.csv; mos_align is about the prompt."""
    rows = _Rows(notes=["mos is mos_quality; mos_align rates how an image fits its prompt"])
    for row in _csv(folder, labels[0], _AGIQA_3K):
        rows.add(row["name"], float(row["mos_quality"]))
    return rows


def _read_pipal(folder: Folder, labels: Sequence[str]) -> _Rows:
    """PIPAL's public training set, from Train_Label/*.txt as pyiqa's script reads it.

    Lines are A0001_00_05.bmp,1500.1: reference, group of distortions, number in it, Elo score.
    """
    rows = _Rows()
    for name in folder.list(f"{labels[0]}/*.txt"):
        for line in folder.read(name).decode("ascii").splitlines():
            if not line.strip():
                continue
            image, elo = line.split(",")
            reference, group, _ = image.rpartition(".")[0].split("_")
            rows.add(
                image.strip(),
                float(elo),
                split="train",
                distortion=group,
                reference=f"{reference.strip()}.bmp",
            )
    rows.notes.append("distortion is the number of the group, 00 to 06; opinions are Elo scores")
    return rows


#: The releases by name, in the order of their help.
RELEASES: Mapping[str, Release] = {
    "koniq10k": Release(
        "KonIQ-10k",
        (("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv"),),
        ("1024x768/", "512x384/"),
        (1.0, 100.0),
        False,
        _read_koniq,
    ),
    "clive": Release(
        "LIVE Challenge (CLIVE)",
        (("Data/AllImages_release.mat",), ("Data/AllMOS_release.mat",)),
        ("Images/",),
        (0.0, 100.0),
        False,
        _read_clive,
    ),
    "spaq": Release(
        "SPAQ",
        (
            (
                "Annotations/MOS and Image attribute scores.xlsx",
                "MOS and Image attribute scores.xlsx",
            ),
        ),
        ("TestImage/",),
        (0.0, 100.0),
        False,
        _read_spaq,
    ),
    "flive": Release(
        "FLIVE",
        (("labels_image.csv", "database/labels_image.csv"),),
        ("database/", ""),
        (0.0, 100.0),
        False,
        _read_flive,
    ),
    "kadid10k": Release(
        "KADID-10k",
        (("dmos.csv",),),
        ("images/",),
        (1.0, 5.0),
        False,
        _read_kadid,
        _KADID_COLUMNS,
    ),
    "tid2013": Release(
        "TID2013",
        (("mos_with_names.txt",),),
        ("distorted_images/",),
        (0.0, 9.0),
        False,
        _read_tid2013,
    ),
    "csiq": Release(
        "CSIQ", (("csiq.DMOS.xlsx",),), ("dst_imgs/", ""), (0.0, 1.0), True, _read_csiq
    ),
    "live": Release(
        "LIVE",
        (("dmos_realigned.mat", "dmos.mat"), ("refnames_all.mat",)),
        ("",),
        (0.0, 100.0),
        True,
        _read_live,
    ),
    "agiqa1k": Release(
        "AGIQA-1K",
        (("AIGC_MOS_Zscore.xlsx",),),
        ("file/", "images/", ""),
        (0.0, 5.0),
        False,
        _read_agiqa_1k,
    ),
    "agiqa3k": Release(
        "AGIQA-3K",
        (("data.csv",),),
        ("", "images/"),
        (0.0, 5.0),
        False,
        _read_agiqa_3k,
        _AGIQA_3K,
    ),
    "pipal": Release(
        "PIPAL", (("Train_Label",),), ("Train_Dist/", "Dist_Imgs/"), None, False, _read_pipal
    ),
}
