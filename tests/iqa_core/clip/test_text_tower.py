"""The text tower: prompts and token embeddings against open_clip's ``encode_text``."""

from __future__ import annotations

import pickle
from pathlib import Path

import open_clip
import pytest
import torch

from iqa_core.clip.text_tower import TextTower
from iqa_core.errors import InputError

ROOT = Path(__file__).parents[3]
PROMPTS = ["a photo", "Good photo.", "a photo of a cat, with compression artifacts", ""]


@pytest.mark.parametrize("architecture", ["tiny", "small-rn-quickgelu", "small-vit-quickgelu"])
@pytest.mark.parametrize("custom_text", [False, True])
def test_embeddings_of_plain_prompts_are_open_clips_encode_text(
    architecture, custom_text, tiny, random_clips
):
    if architecture == "tiny":
        weights = ROOT / "iqa_core" / "weights" / "tiny.safetensors"
        clip = open_clip.create_model("tiny", str(weights), force_custom_text=custom_text).eval()
    else:
        clip = open_clip.create_model(architecture, force_custom_text=custom_text).eval()
        state = random_clips[architecture].state_dict()
        if custom_text:
            state = open_clip.model.convert_to_custom_text_state_dict(state)
        clip.load_state_dict(state)
    text = TextTower(clip, open_clip.get_tokenizer(architecture))
    tokens = open_clip.get_tokenizer(architecture)(PROMPTS)
    with torch.no_grad():
        expected = clip.encode_text(tokens, normalize=True)
        embedded = text.encode_embeddings(text.token_embedding(tokens), text.end_of_text(tokens))
    assert torch.equal(text.tokenize(PROMPTS), tokens)
    torch.testing.assert_close(embedded, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(text.encode(PROMPTS), expected, rtol=0, atol=1e-6)
    assert (expected[:1] - expected[1:]).abs().max(dim=-1).values.min() > 1e-3  # prompts differ


def test_what_follows_end_of_text_does_not_matter(tiny):
    tokens = tiny.text.tokenize(["a photo", "a very long prompt about a photo"])
    end = tiny.text.end_of_text(tokens)
    embeddings = tiny.text.token_embedding(tokens)
    expected = tiny.text.encode_embeddings(embeddings, end)
    for row, position in enumerate(end):
        embeddings[row, position + 1 :] = 100
    changed = tiny.text.encode_embeddings(embeddings, end)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6)
    cut = tiny.text.encode_embeddings(embeddings[:, : end.max() + 1], end)
    torch.testing.assert_close(cut, expected, rtol=0, atol=1e-6)


def test_gradients_reach_the_embeddings_up_to_end_of_text(tiny):
    tokens = tiny.text.tokenize(["a good photo"])
    embeddings = tiny.text.token_embedding(tokens).requires_grad_()
    end = tiny.text.end_of_text(tokens)
    tiny.text.encode_embeddings(embeddings, end)[:, 0].sum().backward()
    size = embeddings.grad.abs().amax(dim=-1)[0]
    assert (size[: end + 1] > 0).all()
    assert (size[end + 1 :] == 0).all()


def test_a_prompt_that_is_too_long(tiny):
    room = tiny.text.context_length - 2  # start- and end-of-text
    fits = " ".join(["photo"] * room)
    assert tiny.text.tokenize([fits])[0, -1] == tiny.text.eot_id
    assert tiny.text.encode([fits]).isfinite().all()
    with pytest.raises(InputError, match=r"has 78 tokens, but the text tower takes at most 77: sh"):
        tiny.text.tokenize(["a photo", f"{fits} photo"])
    with pytest.raises(
        InputError, match="prompts of 78 tokens are longer than the text tower's 77"
    ):
        tiny.text.encode_embeddings(torch.zeros(1, 78, 128), torch.tensor([77]))


@pytest.mark.parametrize("kind", [{"no_causal_mask": True}, {"pool_type": "last"},
                                  {"embed_cls": True}])  # fmt: skip
def test_a_tower_of_another_kind_encodes_but_takes_no_embeddings(kind, architectures):
    config = open_clip.get_model_config("small-vit")
    config["text_cfg"] |= kind
    clip = open_clip.CustomTextCLIP(**config).eval()
    text = TextTower(clip, open_clip.get_tokenizer("small-vit"))
    expected = clip.encode_text(text.tokenize(PROMPTS), normalize=True)
    assert torch.equal(text.encode(PROMPTS), expected)
    with pytest.raises(InputError, match=r"is not of CLIP's causal kind .* use another model"):
        text.encode_embeddings(torch.zeros(1, 3, 64), torch.tensor([2]))


def test_neither_tower_holds_the_other(tiny):
    """What is sent to a worker is what it needs."""
    both = sum(
        parameter.numel() for parameter in [*tiny.image.built.parameters(), *tiny.text.parameters()]
    )
    image, text = (len(pickle.dumps(tower)) for tower in (tiny.image, tiny.text))
    tokenizer = len(pickle.dumps(tiny.text.tokenizer))
    assert image + text - tokenizer < 1.1 * 4 * both
    parameters = sum(parameter.numel() for parameter in tiny.image.built.parameters())
    assert image < 1.1 * 4 * parameters + 100_000
