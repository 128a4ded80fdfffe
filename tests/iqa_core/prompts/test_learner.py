"""The prompt learner against open_clip's `encode_text`, and what of it is trained."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from iqa_core.clip.text_tower import TextTower
from iqa_core.errors import InputError
from iqa_core.evaluation.correlations import srcc
from iqa_core.losses.listwise import listmle
from iqa_core.prompts.learner import DEFAULT_CONTEXT_LENGTH, PromptLearner
from iqa_core.prompts.nearest_words import nearest_words
from iqa_core.prompts.pairs import NAMED_PAIRS, PromptPair
from iqa_core.scoring.features import PromptFeatures
from iqa_core.scoring.margins import margins

WEIGHTS = Path(__file__).parents[3] / "iqa_core" / "weights"
PAIRS = (
    PromptPair("short", "Good photo.", "Bad photo."),
    PromptPair("long", "a sharp, antialiased photo with crisp details", "blurry"),
    PromptPair("odd", "naïve 4k-photorealism!?", "jpeg-artefacts.."),
)
TEXTS = [text for pair in PAIRS for text in (pair.positive, pair.negative)]


def clip_of(name: str):
    """open_clip's own model, the reference: whole text tower, random weights, stunted image tower."""
    if name == "tiny":
        return open_clip.create_model(name, pretrained=str(WEIGHTS / f"{name}.safetensors"))
    torch.manual_seed(0)
    vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64}
    return open_clip.create_model(name, vision_cfg=vision)


def tower_of(clip) -> TextTower:
    return TextTower(clip.eval(), open_clip.get_tokenizer("tiny"))


def encode_by_open_clip(clip, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return clip.encode_text(open_clip.get_tokenizer("tiny")(texts), normalize=True)


@pytest.fixture(scope="module")
def tiny_clip():
    return clip_of("tiny")


@pytest.fixture(scope="module")
def tiny(tiny_clip) -> TextTower:
    return tower_of(tiny_clip)


def texts_of(features: torch.Tensor) -> torch.Tensor:
    """(P, 2, D) -> (2 P, D), as TEXTS are ordered."""
    return features.detach().flatten(0, 1)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


# Text parity.


@pytest.mark.parametrize(
    "name",
    [
        "tiny",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("RN50", "RN50-quickgelu", "ViT-B-32-quickgelu")
        ),
    ],
)
def test_the_learner_is_open_clips_encode_text(name):
    """Without context vectors, and with those of words: the prompt with these words in front."""
    clip = clip_of(name)
    tower = tower_of(clip)
    learner = PromptLearner(tower, PAIRS, context_length=0)
    close(texts_of(learner(tower)), encode_by_open_clip(clip, TEXTS))
    learner = PromptLearner(tower, PAIRS, init="a photorealistic photo of")
    longer = [f"a photorealistic photo of {text}" for text in TEXTS]
    close(texts_of(learner(tower)), encode_by_open_clip(clip, longer))


def test_context_from_words_at_the_other_positions(tiny, tiny_clip):
    end = PromptLearner(tiny, PAIRS, init="in a photo", position="end")
    longer = [f"{text} in a photo" for text in TEXTS]
    close(texts_of(end(tiny)), encode_by_open_clip(tiny_clip, longer))
    middle = PromptLearner(tiny, PAIRS, init="one two three four five", position="middle")
    longer = [f"one two {text} three four five" for text in TEXTS]
    close(texts_of(middle(tiny)), encode_by_open_clip(tiny_clip, longer))


def test_tokens_are_counted_not_words(tiny):
    learner = PromptLearner(tiny, PAIRS, init="photorealistic antialiasing")
    ids = tiny.tokenizer.encode("photorealistic antialiasing")
    assert len(ids) == learner.context_length == 5
    assert torch.equal(learner.context, tiny.token_embedding.weight[ids])


@pytest.mark.parametrize("position", ["front", "end", "middle"])
@pytest.mark.parametrize("length", [0, 1, 7])
@pytest.mark.parametrize("context", ["shared", "per-side"])
def test_sharing_and_cutting_change_nothing(tiny, position, length, context):
    """Each prompt by itself, in all of the tower's 77 positions, the rest filled with noise."""
    learner = PromptLearner(tiny, PAIRS, position=position, context_length=length, context=context)
    with torch.no_grad():
        learner.context.normal_(std=0.02, generator=torch.Generator().manual_seed(3))

    class Whole:
        token_embedding = tiny.token_embedding

        def encode_tree(self, embeddings, positions, mask, ends):
            rows = []
            for end in ends:
                own = embeddings[mask[end] == 0]
                noise = torch.randn(tiny.context_length - len(own), own.shape[1])
                rows.append(torch.cat([own, noise]))
            x = torch.stack(rows) + tiny.positional_embedding
            x = tiny.transformer(x, attn_mask=tiny.attn_mask)
            x = tiny.ln_final(x)[torch.arange(len(x)), positions[ends]] @ tiny.text_projection
            return torch.nn.functional.normalize(x, dim=-1)

    close(learner(tiny), learner(Whole()))


@pytest.mark.parametrize(
    ("position", "context", "shared"),
    [("front", "shared", 1 + 7), ("front", "per-side", 1), ("end", "shared", 1)],
)
def test_what_prompts_begin_with_is_run_once(tiny, position, context, shared):
    pairs = [PromptPair("a", "Good photo.", "Bad photo."), PromptPair("b", "Clean", "Noisy")]
    learner = PromptLearner(
        tiny, pairs, context_length=7, position=position, context=context, seed=1
    )
    lengths = [
        len(tiny.tokenizer.encode(text)) + 7 + 2 for p in pairs for text in (p.positive, p.negative)
    ]
    saved = 3 * shared if context == "shared" else 3 * 1 + 2 * 7 * (position == "front")
    assert len(learner.symbols) == sum(lengths) - saved


def test_middle_with_two_sides_is_the_layout_of_clip_iqa_plus(tiny):
    """Start, 8 vectors, the base prompt with its full stop, 8 vectors, end: by hand."""
    pair = PromptPair("quality", "Good photo..", "Bad photo..")
    learner = PromptLearner(tiny, [pair], context_length=16, position="middle", context="per-side")
    with torch.no_grad():
        learner.context.normal_(std=0.02, generator=torch.Generator().manual_seed(3))
    tokens = tiny.tokenize([pair.positive, pair.negative])
    own = tiny.token_embedding(tokens)
    expected = [
        torch.cat([row[:1], context[:8], row[1:4], context[8:], row[4:][: 77 - 20]])
        for row, context in zip(own, learner.context, strict=True)
    ]
    assert (tokens[:, 4] == tiny.eot_id).all()
    features = tiny.encode_embeddings(torch.stack(expected), torch.tensor([20, 20]))
    close(learner(tiny), features.unsqueeze(0))


# Shapes, sides, what is trained and what is saved.


def test_shapes_and_defaults(tiny):
    shared = PromptLearner(tiny, PAIRS)
    assert shared.context.shape == (DEFAULT_CONTEXT_LENGTH, 128)
    assert shared.names == ("short", "long", "odd")
    features = shared(tiny)
    assert features.shape == (3, 2, 128)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3, 2))
    per_side = PromptLearner(tiny, PAIRS, context="per-side", context_length=5)
    assert per_side.context.shape == (2, 5, 128)
    assert per_side.context_length == 5


def test_both_kinds_start_from_the_same_prompts(tiny):
    shared, per_side = (
        PromptLearner(tiny, PAIRS, context=kind, seed=4) for kind in ("shared", "per-side")
    )
    assert all(torch.equal(side, shared.context) for side in per_side.context)
    close(shared(tiny), per_side(tiny))


def test_a_side_has_its_own_context(tiny):
    learner = PromptLearner(tiny, PAIRS, context="per-side")
    before = learner(tiny).detach()
    with torch.no_grad():
        learner.context[1] *= -2
    after = learner(tiny).detach()
    assert torch.equal(after[:, 0], before[:, 0])
    assert ((after[:, 1] - before[:, 1]).norm(dim=-1) > 1e-3).all()


def test_pairs_do_not_see_each_other(tiny):
    together = PromptLearner(tiny, PAIRS)(tiny)
    for i, pair in enumerate(PAIRS):
        close(PromptLearner(tiny, [pair])(tiny)[0], together[i])


def test_positions_differ(tiny):
    front, end, middle = (
        PromptLearner(tiny, PAIRS, position=position)(tiny)
        for position in ("front", "end", "middle")
    )
    for one, other in ((front, end), (front, middle), (end, middle)):
        assert ((one - other).norm(dim=-1) > 1e-3).all()


def test_seeds(tiny):
    first, again, other = (PromptLearner(tiny, PAIRS, seed=s).context for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    many = PromptLearner(tiny, PAIRS[:1], context_length=64).context
    assert many.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("kind", ["shared", "per-side"])
@pytest.mark.parametrize("position", ["front", "end", "middle"])
def test_gradients_reach_every_context_vector_and_nothing_else(tiny, kind, position):
    learner = PromptLearner(tiny, PAIRS, context=kind, position=position)
    images = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    learner.margins(tiny, images)[:, 1].square().sum().backward()
    assert [name for name, _ in learner.named_parameters()] == ["context"]
    assert (learner.context.grad.norm(dim=-1) > 0).all()
    assert all(p.grad is None and not p.requires_grad for p in tiny.parameters())


def test_the_gradient_is_the_slope(tiny):
    learner = PromptLearner(tiny, PAIRS)
    images = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    direction = torch.randn(learner.context.shape, generator=torch.Generator().manual_seed(1))

    def value():
        return learner.margins(tiny, images).sin().sum()

    value().backward()
    slope = (learner.context.grad * direction).sum().item()
    with torch.no_grad():
        learner.context += 1e-5 * direction
        above = value().item()
        learner.context -= 2e-5 * direction
        below = value().item()
    assert (above - below) / 2e-5 == pytest.approx(slope, rel=1e-2)


def test_the_tower_is_no_part_of_the_learner(tiny):
    learner = PromptLearner(tiny, PAIRS)
    assert set(learner.state_dict()) == {"context"}
    assert list(learner.children()) == []
    pickled = io.BytesIO()
    torch.save(learner, pickled)
    assert pickled.tell() < 100_000
    twin = copy.deepcopy(learner)
    with torch.no_grad():
        twin.context += 1
    assert not torch.equal(twin.context, learner.context)
    twin.load_state_dict(learner.state_dict())
    assert torch.equal(twin(tiny), learner(tiny))


def test_a_few_steps_learn_an_order(tiny):
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(16, 128, generator=generator), dim=-1)
    # An order that prompts can express, as others gave it.
    others = PromptLearner(tiny, [PromptPair("bright", "Bright photo.", "Dark photo.")])
    targets = others.margins(tiny, images, 100.0).detach()[:, 0]
    learner = PromptLearner(tiny, NAMED_PAIRS["clip-iqa"])
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    losses, agreement = [], []
    for _ in range(120):
        margins = learner.margins(tiny, images, 100.0)
        loss = listmle(margins.T, targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        agreement.append(srcc(margins.detach()[:, 0].numpy(), targets.numpy()))
    assert losses[-1] < 0.7 * losses[0]
    assert agreement[0] < 0.5
    assert agreement[-1] > 0.9


# Margins, teacher, words.


def test_margins_equal_those_of_scoring(tiny):
    learner = PromptLearner(tiny, PAIRS)
    features = learner(tiny).detach()
    images = np.random.default_rng(0).normal(size=(5, 128)).astype(np.float16)
    prompts = PromptFeatures(learner.names, features.numpy(), 100.0, digest="")
    found = learner.margins(tiny, torch.from_numpy(images), 100.0)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(
        found.detach().numpy(), margins(images, prompts), rtol=1e-4, atol=1e-3
    )


def test_nearest_words_of_words_are_these_words(tiny):
    context = PromptLearner(tiny, PAIRS, init="a photo of", context="per-side").context
    found = nearest_words(tiny, context)
    assert [words[0][0] for words in found] == ["a", "photo", "of"] * 2
    assert all(len(words) == 3 and words[0][1] < 1e-6 < words[1][1] for words in found)
    assert all(words[1][1] <= words[2][1] for words in found)


# Refusals.


def test_a_prompt_that_does_not_fit_is_named(tiny):
    fits = 77 - 2 - len(tiny.tokenizer.encode(PAIRS[1].positive))
    PromptLearner(tiny, PAIRS, context_length=fits)(tiny)
    message = (
        rf"prompt 'a sharp, antialiased .*' has {77 - fits} tokens, with {fits + 1} context "
        rf"vectors 78, but the text tower takes at most 77: use at most {fits} vectors or a shorter prompt"
    )
    with pytest.raises(InputError, match=message):
        PromptLearner(tiny, PAIRS, context_length=fits + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position": "back"}, r"position \('back'\) must be one of front, end, middle: "),
        ({"context": "per-pair"}, r"context \('per-pair'\) must be one of shared, per-side: "),
        ({"context_length": -1}, r"context_length \(-1\) must be at least 0"),
        ({"init": "a photo", "context_length": 8}, "'a photo' are 2 tokens, .* is 8: leave"),
        ({"init": " "}, "' ' are 0 tokens"),
        ({"pairs": []}, r"named \[\]: give one or more"),
        ({"pairs": [*PAIRS, PAIRS[0]]}, "with distinct names"),
    ],
)
def test_unusable_arguments(tiny, arguments, message):
    with pytest.raises(InputError, match=message):
        PromptLearner(tiny, **{"pairs": PAIRS, **arguments})


def test_a_text_tower_that_pools_otherwise_is_refused():
    """SigLIP's text tower reads the last token, without a causal mask."""
    siglip = open_clip.CustomTextCLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        text_cfg={
            "context_length": 16,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 1,
            "pool_type": "last",
            "no_causal_mask": True,
        },
    )
    tower = TextTower(siglip, open_clip.get_tokenizer("tiny"))
    with pytest.raises(InputError, match=r"not of CLIP's causal kind .* use another model"):
        PromptLearner(tower, PAIRS)
