"""Tests of iqa_core/releases/read.py, on folders laid out as the official releases unpack.

Each fixture writes the release's own files in their own formats; images are empty files, as nothing
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
from iqa_core.releases.read import RELEASES, read_release, recognise_release


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


@pytest.fixture(params=LAYOUTS, ids=NAMES)
def layout(request, tmp_path):
    """Each release's name and folder in turn."""
    request.param(tmp_path / "release")
    return request.param.__name__, tmp_path / "release"


def read(make, tmp_path):
    make(tmp_path / "release")
    found = read_release(str(tmp_path / "release"), make.__name__)
    return found, {row["image_id"]: row for row in found.table.to_pylist()}


# All of them ----------------------------------------------------------------------------------------


def test_every_release_has_a_layout_here():
    assert list(RELEASES) == NAMES


def test_it_is_recognised_and_its_images_are_there(layout):
    name, folder = layout
    assert recognise_release(str(folder)) == name
    found = read_release(str(folder), name)
    rows = found.table.to_pylist()
    assert len(rows) >= 2
    assert all(Path(row["uri"]).is_file() for row in rows)
    assert len({row["uri"] for row in rows}) == len({row["image_id"] for row in rows}) == len(rows)


def test_normalised_opinions_are_in_0_to_1_and_higher_is_better(layout):
    name, folder = layout
    table = read_release(str(folder), name).table
    mos, normalised = (table[column].to_numpy() for column in ("mos", "mos_normalised"))
    assert (normalised >= 0).all()
    assert (normalised <= 1).all()
    sign = -1 if RELEASES[name].lower_is_better else 1
    assert (np.argsort(sign * mos, kind="stable") == np.argsort(normalised, kind="stable")).all()


def test_the_folder_above_will_do_for_a_named_release(layout):
    name, folder = layout
    assert recognise_release(str(folder.parent)) is None
    found = read_release(str(folder.parent), name)
    assert found.table.equals(read_release(str(folder), name).table)


@pytest.mark.parametrize("make", [koniq10k, spaq, flive, kadid10k, csiq, agiqa3k, pipal])
def test_a_remote_release(make, tmp_path):
    import fsspec

    name, folder = make.__name__, tmp_path / "release"
    make(folder)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), f"/{name}", recursive=True)
    try:
        assert recognise_release(f"memory://{name}") == name
        found = read_release(f"memory://{name}", name).table["uri"].to_pylist()
        local = read_release(str(folder), name).table["uri"].to_pylist()
        assert found == [f"memory://{one.replace(str(folder), '/' + name)}" for one in local]
    finally:
        memory.rm(f"/{name}", recursive=True)


def fails(text, folder, name):
    with pytest.raises(InputError, match=text) as raised:
        read_release(str(folder), name)
    assert "\n" not in str(raised.value)


def test_a_missing_image(layout):
    name, folder = layout
    victim = Path(read_release(str(folder), name).table["uri"][1].as_py())
    victim.unlink()
    title = RELEASES[name].title.replace("(", r"\(").replace(")", r"\)")
    fails(
        rf"lacks 1 of the [\d,]+ images of {title}, such as .*{victim.name}, expected in .*: unpack",
        folder,
        name,
    )


def test_missing_labels(layout):
    name, folder = layout
    for label in RELEASES[name].labels[-1]:
        path = folder / label
        if path.is_dir():
            path.rename(folder / "elsewhere")
        elif path.exists():
            path.unlink()
    assert recognise_release(str(folder)) is None
    fails(r"is not .* as it unpacks: it has no .*: give the folder that holds it", folder, name)


def test_damaged_labels(layout):
    name, folder = layout
    for group in RELEASES[name].labels:
        for label in group:
            for path in [folder / label, *(folder / label).glob("*")]:
                if path.is_file():
                    path.write_bytes(b"\x93 no, nothing; of the kind\n")
    fails("(can't be read as that of|has no column|has no image)", folder, name)


def test_no_folder(tmp_path):
    fails("is no folder: give the one that KonIQ-10k was unpacked to", tmp_path / "no", "koniq10k")


def test_an_ordinary_folder_is_no_release(tmp_path):
    write_csv(tmp_path / "data.csv", ["name", "price"], [["a", 1]])
    write_csv(tmp_path / "dmos.csv", ["name", "dmos"], [["a", 1]])
    assert recognise_release(str(tmp_path)) is None
    fails(
        r"data\.csv has no column 'prompt', but name, price: is it the release's own",
        tmp_path,
        "agiqa3k",
    )


def test_two_releases_in_one_folder(tmp_path):
    kadid10k(tmp_path)
    tid2013(tmp_path / "b")
    (tmp_path / "b" / "mos_with_names.txt").rename(tmp_path / "mos_with_names.txt")
    with pytest.raises(
        InputError, match="holds several releases: name one with --release: kadid10k, tid2013"
    ):
        recognise_release(str(tmp_path))


# One by one -----------------------------------------------------------------------------------------


def test_koniq10k(tmp_path):
    _, rows = read(koniq10k, tmp_path)
    row = rows["10007357496.jpg"]
    assert row["uri"] == str(tmp_path / "release" / "1024x768" / "10007357496.jpg")
    assert row["mos"] == 68.7285714286
    assert row["mos_normalised"] == pytest.approx((68.7285714286 - 1) / 99)
    assert {name: one["split"] for name, one in rows.items()} == {
        "10004473376.jpg": "train",
        "10007357496.jpg": "test",
        "10043785683.jpg": "validation",
    }


def test_koniq10k_without_its_sets_is_of_the_same_scale_and_says_so(tmp_path):
    koniq10k(tmp_path)
    (tmp_path / "koniq10k_distributions_sets.csv").unlink()
    found = read_release(str(tmp_path), "koniq10k")
    assert found.table.column_names == ["uri", "image_id", "mos", "mos_normalised"]
    assert found.table["mos"].to_pylist() == [77.3836206897, 68.7285714286, 71.2043269231]
    assert "no official split" in found.notes[0]


def test_koniq10k_never_mixes_two_sizes(tmp_path):
    koniq10k(tmp_path)
    (tmp_path / "1024x768" / "10004473376.jpg").unlink()
    fails("lacks 1 of the 3 images of KonIQ-10k", tmp_path, "koniq10k")


def test_clive_leaves_its_seven_training_examples_out(tmp_path):
    found, rows = read(clive, tmp_path)
    assert len(rows) == 1162
    assert not any(name.startswith("t") for name in rows)
    assert rows["3.bmp"]["mos"] == pytest.approx(np.linspace(3.42, 92.43, 1169)[7])
    assert found.notes == ("the first 7 images are training examples: left out",)


def test_clive_of_another_length(tmp_path):
    clive(tmp_path)
    savemat(tmp_path / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.ones((1, 1162))})
    fails(
        "names 1,169 images and Data/AllMOS_release.mat rates 1,162, but the release has 1,169",
        tmp_path,
        "clive",
    )


def test_spaq(tmp_path):
    found, rows = read(spaq, tmp_path)
    assert rows["00001.jpg"]["mos"] == 32.55
    assert rows["00001.jpg"]["mos_normalised"] == pytest.approx(0.3255)
    assert "512" in found.notes[0]


def test_flive(tmp_path):
    found, rows = read(flive, tmp_path)
    assert {name: row["split"] for name, row in rows.items()} == {
        "blur_dataset/motion0044.jpg": "train",
        "voc_emotic_ava/AVA__129332.jpg": "validation",
        "EE371R/rq59.jpg": "train",
        "blur_dataset/motion0220.jpg": "test",
    }
    assert rows["EE371R/rq59.jpg"]["uri"] == str(
        tmp_path / "release" / "database" / "EE371R" / "rq59.jpg"
    )
    assert found.notes == ()


def test_flive_without_its_splits(tmp_path):
    flive(tmp_path)
    (tmp_path / "database" / "labels>640.csv").unlink()
    found = read_release(str(tmp_path), "flive")
    assert found.table["split"].to_pylist() == ["train", "validation", "train", "train"]
    assert found.notes[0].startswith("no official test split")
    (tmp_path / "database" / "labels<=640_padded.csv").unlink()
    found = read_release(str(tmp_path), "flive")
    assert "split" not in found.table.column_names
    assert found.notes[0].startswith("no official test and validation split")


def test_kadid10k_dmos_rises_with_quality(tmp_path):
    found, rows = read(kadid10k, tmp_path)
    row = rows["I81_25_03.png"]
    assert (row["distortion"], row["level"], row["reference"]) == ("contrast change", 3, "I81.png")
    assert rows["I01_01_01.png"]["distortion"] == "gaussian blur"
    assert rows["I01_01_01.png"]["mos_normalised"] == pytest.approx(3.57 / 4)
    assert "rises with quality" in found.notes[0]


def test_kadid10k_of_an_unknown_distortion(tmp_path):
    kadid10k(tmp_path)
    row = [("I01_00_01.png", "I01.png", 3.0, 0.5)]
    write_csv(tmp_path / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], row)
    fails(
        "can't be read as that of KADID-10k .*distortion 00 is none of the 25", tmp_path, "kadid10k"
    )


def test_tid2013_in_whatever_case(tmp_path):
    _, rows = read(tid2013, tmp_path)
    assert rows["I01_01_1.bmp"]["uri"].endswith("distorted_images/i01_01_1.bmp")
    row = rows["i25_10_3.bmp"]
    assert row["uri"].endswith("distorted_images/i25_10_3.BMP")
    assert (row["distortion"], row["level"], row["reference"]) == ("jpeg", 3, "I25.BMP")
    assert row["mos_normalised"] == pytest.approx(7.21429 / 9)
    assert rows["I01_24_5.bmp"]["distortion"] == "sparse sampling and reconstruction"


def test_csiq_is_turned_round(tmp_path):
    _, rows = read(csiq, tmp_path)
    assert list(rows) == [
        "awgn/1600.AWGN.1.png",
        "jpeg2000/1600.jpeg2000.5.png",
        "contrast/shroom.contrast.2.png",
        "blur/shroom.BLUR.4.png",
    ]
    row = rows["jpeg2000/1600.jpeg2000.5.png"]
    assert (row["mos"], row["mos_normalised"]) == (0.9, pytest.approx(0.1))
    assert (row["distortion"], row["level"], row["reference"]) == ("jpeg2000", 5, "1600.png")


def test_csiq_without_its_sheet(tmp_path):
    csiq(tmp_path)
    write_xlsx(tmp_path / "csiq.DMOS.xlsx", {"Sheet1": (0, 0, [["image"]])})
    fails("has the sheets Sheet1, but not all_by_image", tmp_path, "csiq")
    write_xlsx(tmp_path / "csiq.DMOS.xlsx", {"all_by_image": (0, 0, [["image", "dmos"]])})
    fails("csiq.DMOS.xlsx has no column 'dst_type', but image, dmos", tmp_path, "csiq")


def test_live_leaves_the_references_out_and_prefers_realigned_opinions(tmp_path):
    found, rows = read(live, tmp_path)
    assert len(rows) == 982 - 197
    row = rows["jpeg/img2.bmp"]  # the 229th: 228 from 0
    assert row["mos"] == pytest.approx(228 / 9 - 2.5)
    assert (row["distortion"], row["reference"]) == ("jpeg", f"ref{228 % 29}.bmp")
    assert "jp2k/img1.bmp" not in rows
    assert found.notes == ("197 undistorted copies of the references are left out",)
    # from -2.39 to 106.5: the scale is widened to what is there
    low, high = 1 / 9 - 2.5, 981 / 9 - 2.5
    assert row["mos_normalised"] == pytest.approx(1 - (228 / 9 - 2.5 - low) / (high - low))
    (tmp_path / "release" / "dmos_realigned.mat").unlink()
    assert set(read_release(str(tmp_path / "release"), "live").table["mos"].to_pylist()) == {0.0}


def test_live_of_another_length(tmp_path):
    live(tmp_path)
    savemat(tmp_path / "refnames_all.mat", {"refnames_all": cells(["a.bmp"] * 779, column=False)})
    fails(
        "dmos_realigned.mat and refnames_all.mat have 779, 982 values, but the release has 982",
        tmp_path,
        "live",
    )


def test_agiqa(tmp_path):
    _, rows = read(agiqa1k, tmp_path)
    assert rows["deepai_0_0_0_0.jpg"]["mos_normalised"] == pytest.approx(3.05 / 5)
    found, rows = read(agiqa3k, tmp_path / "3k")
    assert rows["sd1.5_lowstep_060.jpg"]["mos"] == 4.2
    assert "mos_align" in found.notes[0]


def test_pipal(tmp_path):
    _, rows = read(pipal, tmp_path)
    row = rows["A0001_06_26.bmp"]
    assert (row["mos"], row["split"], row["distortion"]) == (1100.5, "train", "06")
    assert row["reference"] == "A0001.bmp"
    assert rows["A0000_06_26.bmp"]["mos_normalised"] == 0
    assert rows["A0000_00_00.bmp"]["mos_normalised"] == 1


def test_pipal_in_its_four_folders(tmp_path):
    pipal(tmp_path)
    for i, path in enumerate(sorted((tmp_path / "Train_Dist").iterdir())):
        (tmp_path / f"Distortion_{i + 1}").mkdir()
        path.rename(tmp_path / f"Distortion_{i + 1}" / path.name)
    found = read_release(str(tmp_path), "pipal").table["uri"].to_pylist()
    assert {Path(one).parent.name for one in found} == {f"Distortion_{i}" for i in range(1, 5)}


def test_an_image_without_an_opinion(tmp_path):
    kadid10k(tmp_path)
    text = (tmp_path / "dmos.csv").read_text()
    (tmp_path / "dmos.csv").write_text(text.replace("4.57", "nan"))
    fails("dmos.csv has no opinion of I01_01_01.png", tmp_path, "kadid10k")
    (tmp_path / "dmos.csv").write_text(text.replace("4.57", "good"))
    fails("can't be read as that of KADID-10k .*good", tmp_path, "kadid10k")
    (tmp_path / "dmos.csv").write_text("dist_img,ref_img,dmos,var\n")
    fails("dmos.csv has no image", tmp_path, "kadid10k")
