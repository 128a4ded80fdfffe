"""Prompts as a tree: nothing twice, nothing lost, and each node sees its own prompt only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.prompts.prefix_tree import PrefixTree


def test_equal_beginnings_stand_once():
    tree = PrefixTree.of([[9, 1, 2, 7], [9, 1, 3, 7], [9, 1, 2, 7]])
    assert tree.symbols.tolist() == [9, 1, 2, 7, 3, 7]
    assert tree.positions.tolist() == [0, 1, 2, 3, 2, 3]
    assert tree.ends.tolist() == [3, 5, 3]
    assert tree.visible[5].tolist() == [True, True, False, False, True, True]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=8))
def test_what_an_end_sees_is_its_prompt(prompts):
    tree = PrefixTree.of(prompts)
    for end, prompt in zip(tree.ends, prompts, strict=True):
        seen = tree.visible[end].nonzero()[:, 0]
        assert tree.symbols[seen].tolist() == prompt
        assert tree.positions[seen].tolist() == list(range(len(prompt)))
    beginnings = {tuple(prompt[: n + 1]) for prompt in prompts for n in range(len(prompt))}
    assert len(tree.symbols) == len(beginnings)
    assert torch.equal(tree.visible, tree.visible.tril())  # parents come first


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="a prompt is empty"):
        PrefixTree.of([[1], []])
