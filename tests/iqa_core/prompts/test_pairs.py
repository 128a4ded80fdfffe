"""Base prompts: the named sets, a user's TOML file, and every way in which it can be wrong."""

from __future__ import annotations

import codecs

import pytest

from iqa_core.errors import InputError
from iqa_core.prompts.pairs import DEFAULT_PAIRS, NAMED_PAIRS, PromptPair, load_pairs


def write(folder, text: str):
    path = folder / "pairs.toml"
    path.write_text(text, encoding="utf-8")
    return path


# Named sets ---------------------------------------------------------------------------------------


def test_the_sets_of_the_literature_hold_its_prompts():
    assert load_pairs("clip-iqa") == (PromptPair("quality", "Good photo.", "Bad photo."),)
    assert [(pair.positive, pair.negative) for pair in load_pairs("pyiqa")] == [
        ("Good image", "bad image"),
        ("Sharp image", "blurry image"),
        ("sharp edges", "blurry edges"),
        ("High resolution image", "low resolution image"),
        ("Noise-free image", "noisy image"),
    ]


def test_attributes_are_those_of_torchmetrics():
    from torchmetrics.functional.multimodal.clip_iqa import _PROMPTS

    ours = [(pair.positive, pair.negative) for pair in load_pairs("attributes")]
    assert ours == list(_PROMPTS.values())


@pytest.mark.parametrize("name", NAMED_PAIRS)
def test_named_pairs_are_distinct_and_name_columns(name):
    pairs = load_pairs(name)
    assert len({pair.name for pair in pairs}) == len(pairs)
    assert len({(pair.positive, pair.negative) for pair in pairs}) == len(pairs)
    assert all(pair.name.isidentifier() for pair in pairs)


def test_the_default_is_a_named_set():
    assert DEFAULT_PAIRS in NAMED_PAIRS


def test_named_sets_can_not_be_changed():
    with pytest.raises(TypeError, match="does not support item assignment"):
        NAMED_PAIRS["clip-iqa"] = ()  # type: ignore[index]


# Files --------------------------------------------------------------------------------------------


def test_a_file_gives_its_pairs_in_their_order(tmp_path):
    path = write(
        tmp_path,
        """
        [[pair]]
        name = "schärfe"
        positive = "ein scharfes Foto"
        negative = "ein unscharfes Foto"

        [[pair]]
        negative = "a bad photo"
        positive = "a good photo"
        name = "good"
        """,
    )
    expected = (
        PromptPair("schärfe", "ein scharfes Foto", "ein unscharfes Foto"),
        PromptPair("good", "a good photo", "a bad photo"),
    )
    assert load_pairs(path) == expected
    assert load_pairs(str(path)) == expected


PAIR = '[[pair]]\nname = "a"\npositive = "good"\nnegative = "bad"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[pair]\n", "is not valid TOML: "),
        ("", r"has no \[\[pair\]\] table, but must hold"),
        ("pair = 3\n", r"has no \[\[pair\]\] table, but must hold"),
        ('[pair]\nname = "a"\n', r"has no \[\[pair\]\] table, but must hold"),
        (f"model = 1\npairs = 2\n{PAIR}", r"has the keys \['model', 'pairs'\], but must hold"),
        ("pair = [3]\n", r"table 1 of .* has 3, but must have exactly name, positive and negative"),
        (
            f'{PAIR}[[pair]]\nname = "b"\npositive = "x"\n',
            r"table 2 of .* has \['name', 'positive'\], but must have exactly",
        ),
        (f"{PAIR}weight = 2\n", r"has \['name', 'negative', 'positive', 'weight'\], but must have"),
        (PAIR * 2, "has the pair name 'a' twice: names must be distinct"),
        (PAIR.replace('"good"', '" "'), "positive of a prompt pair is ' ', but must be a text"),
        (PAIR.replace('"a"', "1"), 'name of a prompt pair is 1, .* write name = "..." in the'),
        (PAIR.replace('"bad"', '"good"'), "pair 'a' has 'good' on both sides, which scores every"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load_pairs(path)
    assert "\n" not in str(caught.value)


FOOD = """# Gerüche\r
[[pair]]\r
name = "geschmack"\r
positive = "ein köstliches Gericht"\r
negative = "ein ungenießbares Gericht"\r
"""


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-16-le"),
    ],
)
def test_a_file_of_windows_is_read(tmp_path, mark, encoding):
    path = tmp_path / "pairs.toml"
    path.write_bytes(mark + FOOD.encode(encoding))
    expected = PromptPair("geschmack", "ein köstliches Gericht", "ein ungenießbares Gericht")
    assert load_pairs(path) == (expected,)


def test_a_byte_order_mark_right_before_the_first_table(tmp_path):
    """Plain ASCII otherwise, as Notepad and PowerShell save it."""
    pair = PromptPair("food", "an appetizing photo", "an unappetizing photo")
    lines = ["[[pair]]", f'name = "{pair.name}"', f'positive = "{pair.positive}"',
             f'negative = "{pair.negative}"', ""]  # fmt: skip
    path = tmp_path / "pairs.toml"
    path.write_bytes(codecs.BOM_UTF8 + "\r\n".join(lines).encode())
    assert load_pairs(path) == (pair,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe\x00", "it is no valid UTF-16"),
        (FOOD.encode("windows-1252"), "it is no UTF-8, but windows-1252 as it seems: save it as"),
        (
            FOOD.encode("utf-8") + "# süß\r\n".encode("latin-1"),
            "it is UTF-8, but not in line 6, which has b'# s",
        ),
        (b"PK\x03\x04\x14\x00\x00\x00", "it holds zero bytes: it is no text file"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, data, message):
    path = tmp_path / "pairs.toml"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"pairs\.toml is not valid TOML: {message}") as caught:
        load_pairs(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["qualty", "missing.toml", "."])
def test_neither_a_set_nor_a_file(source):
    with pytest.raises(InputError, match="is neither a named set") as caught:
        load_pairs(source)
    assert f"pairs {source!r}" in str(caught.value)
    assert "(clip-iqa, pyiqa, attributes, quality)" in str(caught.value)
