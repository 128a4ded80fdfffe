"""Tests of labels/id_matching.py: what joins in spite of how it is written, and what must not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from iqa_core.evaluation.labels.id_matching import match_ids, why_unmatched


def match(scores, labels):
    return match_ids(pa.array(scores, pa.string()), pa.array(labels, pa.string()))


def test_equal_ids_need_no_step():
    found = match(["b", "a", "x"], ["a", "b", "c"])
    assert found.rows.tolist() == [1, 0, -1]
    assert (found.count, found.steps, found.skipped) == (2, {}, [])


@pytest.mark.parametrize(
    ("score", "label", "ignored"),
    [
        (
            "u\u0308ber-{}.png",
            "\u00fcber-{}.png",
            "blanks around ids and Unicode's forms (NFC, NFD)",
        ),
        ("a{}.png", " a{}.png\u00a0", "blanks around ids and Unicode's forms (NFC, NFD)"),
        ("x/y/a{}.png", "x\\y\\a{}.png", "the way folders are written (\\, ./)"),
        ("x/a{}.png", "./x//a{}.png", "the way folders are written (\\, ./)"),
        ("x/./a{}", "/x/a{}", "the way folders are written (\\, ./)"),
        ("my photo {}.png", "my%20photo%20{}.png", "percent-encoding"),
        ("x/e\u0301{}.png", "x%2F%C3%A9{}.png", "percent-encoding"),
        ("a{}.JPEG", "a{}.jpeg", "the suffix's case"),
        ("a{}.webp", "a{}", "the suffix"),
        ("a{}", "a{}.TIF", "the suffix"),
        ("koniq/a{}.png", "a{}.png", "folders"),
        ("a{}.png", "D:\\studies\\koniq\\a{}.png", "folders"),
        ("s3://bucket/x/y/a{}.png", "x/y/a{}.png", "folders"),
        ("https://cdn.org/x/a{}.png?width=3", "x/a{}.png", "folders"),
        ("deep/er/a{}.bmp", "a{}", "folders and suffix"),
        ("a{}.bmp", "deep/er/a{}", "folders and suffix"),
        ("IMG_{}.png", "img_{}.png", "case"),
        ("IMG_{}.png", "x/img_{}.png", "case and folders"),
        ("000{}", "{}", "leading zeros"),
        ("{}", "{}.0", "leading zeros"),
        ("set/00{}.jpg", "{}", "case, folders, suffix and leading zeros"),
    ],
)
def test_ways_to_write_the_same_id(score, label, ignored):
    scores = [score.format(i) for i in (3, 1, 2)]
    labels = [label.format(i) for i in (1, 2, 3, 4)]
    found = match(scores, labels)
    assert found.rows.tolist() == [2, 0, 1]
    assert found.steps == {ignored: (3, scores[1], labels[0])}
    other = match(labels, scores)  # what one side lacks, the other may lack
    assert other.rows.tolist() == [1, 2, 0, -1]


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (["a.jpg", "b.jpg"], ["a.png", "b.png"]),  # the JPEG is not the original
        (["train/1.png", "train/2.png"], ["test/1.png", "test/2.png"]),
        (["x/train/1.png"], ["y/train/1.png"]),
        (["1.png.jpg"], ["1.png"]),
        (["a.v1", "a.v2"], ["a"]),  # a suffix of images alone
        (["%E8.png", "%C3.png"], ["%E9.png", "%C4.png"]),  # bytes that are no UTF-8
        (["1e3"], ["1000"]),
        (["img01"], ["img1"]),
        (["0x10"], ["16"]),
        (["a b"], ["ab"]),
        (["xa.png"], ["a.png"]),
    ],
)
def test_different_images_stay_apart(scores, labels):
    found = match(scores, labels)
    assert found.count == 0
    assert found.steps == {}
    assert match(labels, scores).count == 0


@pytest.mark.parametrize(
    ("scores", "labels", "text"),
    [
        (
            ["x/1.png", "y/1.png", "y/2.png"],
            ["1.png", "2.png"],
            "ignoring folders would be ambiguous: 'x/1.png' and 'y/1.png' of the scores fit '1.png'",
        ),
        (
            ["1.png", "2.png"],
            ["x/1.png", "y/1.png", "y/2.png"],
            "ignoring folders would be ambiguous: 'x/1.png' and 'y/1.png' of the labels fit '1.png'",
        ),
        (["a.png", "a.jpg"], ["a"], "'a.png' and 'a.jpg' of the scores fit 'a'"),
        (["z/y/a"], ["a", "y/a"], "'a' and 'y/a' of the labels fit 'z/y/a'"),
        (["IMG", "img"], ["Img"], "ignoring case would be ambiguous"),
        (["07", "007"], ["7"], "ignoring leading zeros would be ambiguous"),
        (["e\u0301", " \u00e9"], ["\u00e9 "], "ignoring blanks around ids and Unicode's forms"),
    ],
)
def test_an_ambiguous_step_is_skipped_with_its_reason(scores, labels, text):
    found = match(scores, labels)
    assert text in found.skipped[0]
    assert found.count <= 1  # of the spelling steps before


def test_what_is_matched_already_makes_a_step_ambiguous_too():
    """a/1 or b/1 may be the image of 1; that b/1 has a label of its own does not settle it."""
    found = match(["a/1", "b/1"], ["1", "b/1"])
    assert found.rows.tolist() == [-1, 1]
    assert len(found.skipped) > 0


def test_a_step_is_only_ambiguous_by_ids_that_it_concerns():
    found = match(["x/1", "y/1", "x/2", "x/3"], ["2", "3"])
    assert found.rows.tolist() == [-1, -1, 0, 1]


def test_the_first_step_that_is_needed_is_taken_and_its_successors_see_its_spelling():
    found = match(["a\\e\u0301.JPG", "b\\c.JPG"], ["\u00e9", "c"])
    assert found.rows.tolist() == [0, 1]
    assert list(found.steps) == ["folders and suffix"]


def test_where_nearly_all_ids_are_equal_parts_are_not_ignored():
    """Ids that are of one form tell that the others are of other images."""
    scores = [f"{i}.png" for i in range(20)]
    found = match([*scores, "x/20.png"], [*scores, "20.png"])
    assert found.count == 20
    found = match([*scores, "e\u0301.png"], [*scores, "\u00e9.png"])  # the same id all the same
    assert found.count == 21


def why(scores, labels):
    found = match(scores, labels)
    return why_unmatched(pa.array(scores), pa.array(labels), found)


def test_examples_of_what_does_not_match_and_why():
    few, fewer, text = why(["k/1.jpg", "k/2.jpg", "k/3.jpg"], ["l/2.jpg", "l/3.jpg", "l/4.jpg"])
    assert (few, fewer) == (["k/2.jpg", "k/3.jpg"], ["l/2.jpg", "l/3.jpg"])
    assert text.startswith(
        "their folders differ: if they are the same images, write the ids of the"
    )
    assert why(["1.jpg"], ["1.png"])[2].startswith("their suffixes differ")
    assert why(["x/1.jpg"], ["y/1.png"])[2].startswith("their folders and suffixes differ")
    assert "those of the scores are numbers, those of the labels names" in why(["17"], ["photo"])[2]
    assert "they have no file name in common" in why(["a.png"], ["b.png"])[2]
    assert "ambiguous" in why(["x/a", "y/a"], ["a"])[2]


def test_no_rows():
    assert match([], ["a"]).count == 0
    assert match(["a"], []).rows.tolist() == [-1]
