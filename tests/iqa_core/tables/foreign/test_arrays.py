"""Tests of iqa_core/tables/foreign/arrays.py."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.tables.foreign.arrays import ArrayFile

ROWS = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float16)


def opened(tmp_path, name, key=None):
    return ArrayFile.of(Folder.of(str(tmp_path)), name, key)


def taken(array, *counts):
    slices = array.slices()
    return np.concatenate([slices.take(count)() for count in counts])


def test_an_npy_file_is_read_in_slices(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    array = opened(tmp_path, "a.npy")
    assert (array.shape, array.dtype, array.column) == ((50, 8), np.float16, None)
    np.testing.assert_array_equal(taken(array, 7, 40, 3), ROWS)
    np.testing.assert_array_equal(array.read(10, 12), ROWS[10:12])


@pytest.mark.parametrize("stored", [np.asfortranarray(ROWS), ROWS.astype(">f4")])
def test_other_orders_of_values_and_bytes(tmp_path, stored):
    np.save(tmp_path / "a.npy", stored)
    found = taken(opened(tmp_path, "a.npy"), 20, 30)
    np.testing.assert_array_equal(found, ROWS)
    assert found.dtype.isnative


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_is_read_as_a_stream(tmp_path, save):
    save(tmp_path / "a.npz", b32_img=ROWS[:, :4], l14_img=ROWS, l14_txt=ROWS[::-1])
    array = opened(tmp_path, "a.npz", "l14_img")
    assert (array.shape, array.column) == ((50, 8), "l14_img")
    np.testing.assert_array_equal(taken(array, 1, 48, 1), ROWS)
    message = "has the arrays b32_img, l14_img, l14_txt: name that of the image features, such as"
    with pytest.raises(InputError, match=message):
        opened(tmp_path, "a.npz")
    with pytest.raises(InputError, match="features_column h14 is no array of"):
        opened(tmp_path, "a.npz", "h14")


def test_the_only_array_of_an_npz_needs_no_name(tmp_path):
    np.savez(tmp_path / "a.npz", ROWS)
    np.testing.assert_array_equal(taken(opened(tmp_path, "a.npz"), 50), ROWS)


class Evil:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return pytest.fail, ("a pickled object was read",)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[Evil(), 1.0]], dtype=object), "holds pickled Python objects"),
        (np.ones((3, 8), dtype=np.int8), "holds int8, but features are float16"),
        (np.ones(8, dtype=np.float32), r"has the shape \(8,\), but features are \(rows, width\)"),
        (np.ones((2, 1, 8), dtype=np.float32), r"has the shape \(2, 1, 8\)"),
    ],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_what_is_no_array_of_features_is_refused(tmp_path, array, message, name):
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, array)
    with pytest.raises(InputError, match=message):
        opened(tmp_path, name)


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-16])
    with pytest.raises(InputError, match="ends before its 50 rows of 8 values do"):
        opened(tmp_path, "a.npy")
    (tmp_path / "a.npy").write_bytes(b"no numbers")
    with pytest.raises(InputError, match="is not a readable NumPy file"):
        opened(tmp_path, "a.npy")


def test_the_digest_changes_with_the_content(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    before = opened(tmp_path, "a.npy").digest()
    assert opened(tmp_path, "a.npy").digest() == before
    np.save(tmp_path / "a.npy", ROWS[::-1])
    assert opened(tmp_path, "a.npy").digest() != before
