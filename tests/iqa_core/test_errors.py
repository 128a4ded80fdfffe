"""Tests of iqa_core/errors.py: one line for notebooks, one for the command line, and pickling."""

from __future__ import annotations

import pickle

from iqa_core.errors import ImageError, InputError, Status


def test_the_keyword_in_a_notebook_and_the_flag_on_the_command_line():
    error = InputError(
        argument="list_size", value=24, limit="at most {num_rows}", fix="lower {list_size}"
    )
    assert str(error) == "list_size (24) must be at most num_rows: lower list_size"
    assert error.on_command_line() == "--list-size 24 must be at most --num-rows: lower --list-size"
    assert (error.argument, error.value) == ("list_size", 24)


def test_texts_are_quoted_in_a_notebook():
    error = InputError(argument="decode", value="quick", limit="fast or exact", fix="choose one")
    assert str(error) == "decode ('quick') must be fast or exact: choose one"
    assert error.on_command_line() == "--decode quick must be fast or exact: choose one"


def test_a_whole_line_is_the_same_everywhere():
    error = InputError("the manifest {a} is empty")
    assert str(error) == error.on_command_line() == "the manifest {a} is empty"


def test_flags_in_a_sentence_are_keywords_in_a_notebook():
    line = (
        "--label-column gives none: use --by a-b, or run `iqa train --batch-size 2` on --output=x"
    )
    error = InputError(line)
    assert str(error) == (
        "label_column gives none: use by a-b, or run `iqa train --batch-size 2` on output=x"
    )
    assert error.on_command_line() == line


def test_errors_survive_pickling():
    error = InputError(argument="list_size", value=24, limit="at most 16", fix="lower {list_size}")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(again) == str(error)
    assert again.on_command_line() == error.on_command_line()
    line = pickle.loads(pickle.dumps(InputError("--pairs x is none")))  # noqa: S301
    assert (str(line), line.on_command_line()) == ("pairs x is none", "--pairs x is none")
    image = pickle.loads(pickle.dumps(ImageError(Status.EMPTY, "zero\nbytes")))  # noqa: S301
    assert (image.status, image.message) == (Status.EMPTY, "zero bytes")
