"""Tests of iqa_core/releases/read.py: what holds for every release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iqa_core.errors import InputError
from iqa_core.releases.read import read_release, recognise_release
from iqa_core.releases.table import RELEASES
from tests.iqa_core.releases.layouts import (
    LAYOUTS,
    NAMES,
    agiqa3k,
    csiq,
    fails,
    flive,
    kadid10k,
    koniq10k,
    pipal,
    spaq,
    tid2013,
    write_csv,
)


@pytest.fixture(params=LAYOUTS, ids=NAMES)
def layout(request, tmp_path):
    """Each release's name and folder in turn."""
    request.param(tmp_path / "release")
    return request.param.__name__, tmp_path / "release"


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


def test_images_behind_a_link_to_a_folder(layout, tmp_path):
    name, folder = layout
    before = read_release(str(folder), name).table["uri"].to_pylist()
    images = Path(before[0]).parent
    if images == folder:
        images = folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(images)
    else:
        images.symlink_to(images.rename(tmp_path / "elsewhere"))
    assert read_release(str(folder), name).table["uri"].to_pylist() == before


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
    fails(
        "is not a folder: give the folder that KonIQ-10k was unpacked to",
        tmp_path / "no",
        "koniq10k",
    )


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
        InputError, match="holds several releases: name one with release: kadid10k, tid2013"
    ):
        recognise_release(str(tmp_path))


def test_an_image_without_an_opinion(tmp_path):
    kadid10k(tmp_path)
    text = (tmp_path / "dmos.csv").read_text()
    (tmp_path / "dmos.csv").write_text(text.replace("4.57", "nan"))
    fails("dmos.csv has no opinion of I01_01_01.png", tmp_path, "kadid10k")
    (tmp_path / "dmos.csv").write_text(text.replace("4.57", "good"))
    fails("can't be read as that of KADID-10k .*good", tmp_path, "kadid10k")
    (tmp_path / "dmos.csv").write_text("dist_img,ref_img,dmos,var\n")
    fails("dmos.csv has no image", tmp_path, "kadid10k")
