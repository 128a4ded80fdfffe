"""Tests of iqa_core/tables/foreign/files.py."""

from __future__ import annotations

import pytest

from iqa_core.errors import InputError
from iqa_core.tables.foreign.files import check_pairs, find_numbered


def test_files_are_found_in_the_order_of_their_numbers(tmp_path):
    for name in ("img_emb_10.npy", "img_emb_2.npy", "img_emb_1.npy", "other.txt", "_x.npy"):
        (tmp_path / name).write_bytes(b"")
    wanted = ["img_emb_1.npy", "img_emb_2.npy", "img_emb_10.npy"]
    assert find_numbered(str(tmp_path), "features", ".npy")[1] == wanted
    assert find_numbered(f"{tmp_path}/img_emb_*.npy", "features", ".npy")[1] == wanted
    assert find_numbered(f"{tmp_path}/img_emb_2.npy", "features", ".npy")[1] == wanted[1:2]
    with pytest.raises(InputError, match=r"features .*gone.npy holds no \*.npy file"):
        find_numbered(f"{tmp_path}/gone.npy", "features", ".npy")


@pytest.mark.parametrize(
    ("features", "metadata", "message"),
    [
        ([("e_0", 5), ("e_1", 5)], [("m_0", 5), ("m_1", 4)], "e_1 has 5 rows, but m_1 of .* has 4"),
        ([("e_0", 5), ("e_2", 5)], [("m_0", 5), ("m_1", 5)], "e_2 would belong to m_1 of"),
        ([("e_0", 9)], [("m_0", 5), ("m_1", 5)], "has 9 rows in 1 files, but metadata has 10 in 2"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(features, metadata, message):
    with pytest.raises(InputError, match=message):
        check_pairs(features, metadata, "--features F")


def test_rows_that_belong_together():
    check_pairs([("e_0", 5), ("e_1", 4)], [("m_0", 5), ("m_1", 4)], "F")
    check_pairs([("all", 9)], [("m_0", 5), ("m_1", 4)], "F")
    check_pairs([("0a7f", 5), ("0b", 4)], [("0a7f", 5), ("0b", 4)], "F")


def test_numbers_that_are_the_same_in_all_names_do_not_count():
    check_pairs([("clip_vit_l14.npy", 5)], [("laion_2b.parquet", 5)], "F")
    check_pairs([("e_0_fp16", 5), ("e_1_fp16", 4)], [("m_0", 5), ("m_1", 4)], "F")
    with pytest.raises(InputError, match="e_2_fp16 would belong to m_1"):
        check_pairs([("e_0_fp16", 5), ("e_2_fp16", 4)], [("m_0", 5), ("m_1", 4)], "F")


def test_a_folder_may_be_named_like_a_glob(tmp_path):
    folder = tmp_path / "emb [v1]"
    folder.mkdir()
    (folder / "a.npy").write_bytes(b"")
    assert find_numbered(str(folder), "features", ".npy")[1] == ["a.npy"]
