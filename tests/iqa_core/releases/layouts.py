"""Folders laid out as the official releases unpack.

Each function writes the release's own files in their own formats; images are empty files, as nothing
here opens them.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from iqa_core.errors import InputError
from iqa_core.releases.read import read_release


def touch(folder: Path, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_csv(path: Path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_xlsx(path: Path, sheets):
    """Write sheets of name -> (rows above the table, columns left of it, rows)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, (above, left, rows) in sheets.items():
        sheet = book.create_sheet(name)
        for i, row in enumerate(rows, start=above + 1):
            for k, value in enumerate(row, start=left + 1):
                sheet.cell(i, k, value)
    book.save(path)


def cells(texts, *, column):
    """Return MATLAB's cell array of texts: 1 x N, or N x 1 as a column."""
    array = np.empty((len(texts), 1) if column else (1, len(texts)), dtype=object)
    array.ravel()[:] = texts
    return array


KONIQ = "image_name,c1,c2,c3,c4,c5,c_total".split(",")  # noqa: SIM905


def koniq10k(folder):
    rows = [
        ("10004473376.jpg", 0.0, 0.0, 0.238, 0.695, 0.067, 105, 77.3836206897, 0.527, "training"),
        ("10007357496.jpg", 0.0, 0.031, 0.469, 0.49, 0.01, 96, 68.7285714286, 0.58, "test"),
        ("10043785683.jpg", 0.0, 0.0, 0.434, 0.566, 0.0, 106, 71.2043269231, 0.498, "validation"),
    ]
    write_csv(folder / "koniq10k_distributions_sets.csv", [*KONIQ, "MOS", "SD", "set"], rows)
    scores = [(*row[:7], 3.8, 0.5, row[7]) for row in rows]
    header = [*KONIQ, "MOS", "SD", "MOS_zscore"]
    write_csv(folder / "koniq10k_scores_and_distributions.csv", header, scores)
    touch(folder, [f"{size}/{row[0]}" for row in rows for size in ("1024x768", "512x384")])
    touch(folder, ["1024x768/not_rated.jpg"])


def clive(folder):
    names = [f"t{i}.bmp" for i in range(1, 8)] + [f"{i}.bmp" for i in range(3, 1165)]
    mos = np.linspace(3.42, 92.43, 1169)[None]
    (folder / "Data").mkdir(parents=True)
    savemat(
        folder / "Data" / "AllImages_release.mat", {"AllImages_release": cells(names, column=True)}
    )
    savemat(folder / "Data" / "AllMOS_release.mat", {"AllMOS_release": mos})
    savemat(folder / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": mos / 5})
    touch(folder / "Images" / "trainingImages", names[:7])
    touch(folder / "Images", names[7:])


def spaq(folder):
    header = [
        "Image name",
        "MOS",
        "Brightness",
        "Colorfulness",
        "Contrast",
        "Noisiness",
        "Sharpness",
    ]
    rows = [["00001.jpg", 32.55, 59, 47, 51, 39, 31], ["00002.jpg", 43.0, 40, 41, 42, 43, 44]]
    target = folder / "Annotations" / "MOS and Image attribute scores.xlsx"
    write_xlsx(target, {"Sheet1": (0, 0, [header, *rows])})
    touch(folder, ["TestImage/00001.jpg", "TestImage/00002.jpg"])


def flive(folder):
    names = [
        "blur_dataset/motion0044.jpg",
        "voc_emotic_ava/AVA__129332.jpg",
        "EE371R/rq59.jpg",
        "blur_dataset/motion0220.jpg",
    ]
    database = folder / "database"
    write_csv(
        database / "labels_image.csv",
        ["name", "mos"],
        zip(names, [75.4, 58.7, 0.0, 33.3], strict=True),
    )
    write_csv(database / "labels>640.csv", ["mos_image", "name_image"], [(33.3, names[3])])
    padded = [(names[0], False), (names[1], True), (names[2], False)]
    write_csv(database / "labels<=640_padded.csv", ["name_image", "is_valid"], padded)
    touch(database, [*names, "patches/rq59.jpg_patch_1.jpg"])


def kadid10k(folder):
    names = ["I01_01_01.png", "I01_01_05.png", "I81_25_03.png"]
    rows = [(n, f"{n[:3]}.png", m, 0.5) for n, m in zip(names, (4.57, 1.47, 3.0), strict=True)]
    write_csv(folder / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], rows)
    touch(folder / "images", [*names, "I01.png", "I81.png"])


def tid2013(folder):
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["5.51429 I01_01_1.bmp", "0.24242 I01_24_5.bmp", "7.21429 i25_10_3.bmp"]
    (folder / "mos_with_names.txt").write_text("\r\n".join(lines) + "\r\n")
    # the release mixes cases, and not as its label file does
    touch(folder / "distorted_images", ["i01_01_1.bmp", "I01_24_5.bmp", "i25_10_3.BMP"])
    touch(folder / "reference_images", ["I01.BMP", "i25.bmp"])


def csiq(folder):
    header = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    rows = [
        [1600, 1, "noise", 1, 0.061, 0.062],
        [1600, 3, "jpeg 2000", 5, 0.1, 0.9],
        ["shroom", 6, "contrast", 2, 0.1, 0.3],
        ["shroom", 5, "blur", 4, 0.1, 0.6],
    ]
    sheets = {"all_by_distortion": (0, 0, [["other"]]), "all_by_image": (3, 3, [header, *rows])}
    write_xlsx(folder / "csiq.DMOS.xlsx", sheets)
    names = ["awgn/1600.AWGN.1.png", "jpeg2000/1600.jpeg2000.5.png"]
    names += ["contrast/shroom.contrast.2.png", "blur/shroom.BLUR.4.png"]
    touch(folder / "dst_imgs", names)
    touch(folder / "src_imgs", ["1600.png", "shroom.png"])


LIVE = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def live(folder):
    names = [f"{kind}/img{i}.bmp" for kind, count in LIVE.items() for i in range(1, count + 1)]
    originals = np.zeros((1, 982), np.uint8)
    originals[0, ::5] = 1
    folder.mkdir(parents=True, exist_ok=True)
    dmos = np.arange(982.0)[None]
    references = [f"ref{i % 29}.bmp" for i in range(982)]
    savemat(folder / "refnames_all.mat", {"refnames_all": cells(references, column=False)})
    savemat(folder / "dmos.mat", {"dmos": dmos * 0, "orgs": originals})
    realigned = {"dmos_new": dmos / 9 - 2.5, "dmos_std": dmos, "orgs": originals}
    savemat(folder / "dmos_realigned.mat", realigned)
    touch(folder, names)
    touch(folder / "refimgs", set(references))


def agiqa1k(folder):
    rows = [
        ["Image", "Prompt", "MOS"],
        ["deepai_0_0_0_0.jpg", "a bird", 3.05],
        ["dreamStudio_8_9_1_.jpg", "x", 0.1],
    ]
    write_xlsx(folder / "AIGC_MOS_Zscore.xlsx", {"Sheet1": (0, 0, rows)})
    touch(folder / "file", ["deepai_0_0_0_0.jpg", "dreamStudio_8_9_1_.jpg"])


AGIQA_3K = "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align"


def agiqa3k(folder):
    rows = [
        ["AttnGAN_normal_000.jpg", "statue of a man", "", "", "", 0.9656, 0.2, 0.4, 0.6],
        [
            "sd1.5_lowstep_060.jpg",
            "artwork, anime style",
            "",
            "",
            "anime style",
            4.2,
            0.7,
            0.8,
            0.8,
        ],
    ]
    write_csv(folder / "data.csv", AGIQA_3K.split(","), rows)
    touch(folder, [row[0] for row in rows])


def pipal(folder):
    for reference in ("A0000", "A0001"):
        path = folder / "Train_Label" / f"{reference}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"{reference}_00_00.bmp,1500.25\n{reference}_06_26.bmp,1{reference[-1]}00.5\n"
        )
        touch(folder / "Train_Dist", [f"{reference}_00_00.bmp", f"{reference}_06_26.bmp"])
        touch(folder / "Train_Ref", [f"{reference}.bmp"])


LAYOUTS = [koniq10k, clive, spaq, flive, kadid10k, tid2013, csiq, live, agiqa1k, agiqa3k, pipal]


NAMES = [one.__name__ for one in LAYOUTS]


def read(make, tmp_path):
    make(tmp_path / "release")
    found = read_release(str(tmp_path / "release"), make.__name__)
    return found, {row["image_id"]: row for row in found.table.to_pylist()}


def fails(text, folder, name):
    with pytest.raises(InputError, match=text) as raised:
        read_release(str(folder), name)
    assert "\n" not in str(raised.value)
