"""The same weights, the same photographs: CLIP-IQA as others compute it, and as we do."""

from __future__ import annotations

import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch

from iqa_core import Scorer
from iqa_core.clip.load import load_towers
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS, PromptPair

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def images(photos) -> list[np.ndarray]:
    """Photographs whole and in parts; even, odd, wide and tall."""
    return [
        photos["chelsea"],
        photos["rocket"],
        photos["astronaut"][:224, :224],
        photos["astronaut"][::2, ::2],
        photos["coffee"][:333, :97],
        photos["coffee"][50:147, 20:251],
        photos["china"][::3, ::3],
        photos["flower"][100:132, 200:320],
        photos["flower"][::4, ::2],
    ]


@pytest.fixture(scope="module")
def archive(openai_archives):
    return openai_archives["small-rn-quickgelu"]


@pytest.fixture(scope="module")
def piq_metric(archive, tmp_path_factory):
    """piq's metric; it looks for weights and token ids in the home folder."""
    piq = pytest.importorskip("piq")
    home = tmp_path_factory.mktemp("home")
    cache = home / ".cache" / "clip"
    cache.mkdir(parents=True)
    shutil.copy(archive, cache / "RN50.pt")
    tokens = open_clip.get_tokenizer("RN50")(["Good photo.", "Bad photo."])
    torch.save(tokens, cache / "clipiqa_tokens.pt")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.load", category=FutureWarning)
        patch.setenv("HOME", str(home))
        return piq.CLIPIQA(data_range=255)


def as_batch(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 255]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()


def test_piq(piq_metric, archive, images):
    scorer = Scorer(f"small-rn@{archive}", "clip-iqa", resolution="native")
    ours = scorer.score(images).score
    theirs = np.concatenate([piq_metric(as_batch(image)).numpy()[:, 0] for image in images])
    assert np.ptp(theirs) > 0.5
    # Folded batch norms and the pool of one query round otherwise: 2e-6 at most was seen.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6)


@pytest.mark.slow
def test_torchmetrics(piq_metric, archive, images, monkeypatch):
    from torchmetrics.functional.multimodal import clip_iqa

    def tokenize(text: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": open_clip.get_tokenizer("RN50")(text).tolist()}

    # As torchmetrics itself loads them: piq's model, and a tokenizer that needs transformers.
    tokenize.tokenizer = SimpleNamespace(model_max_length=77)
    loaded = (piq_metric.feature_extractor, tokenize)
    monkeypatch.setattr(clip_iqa, "_get_clip_iqa_model_and_processor", lambda _: loaded)

    # torchmetrics has a scale of its own, and spells some attributes differently
    scorer = Scorer(f"openai@{archive}", "attributes", resolution="native", logit_scale=100)
    ours = scorer.score(images).scores
    prompts = tuple((pair.positive, pair.negative) for pair in NAMED_PAIRS["attributes"])
    with torch.no_grad():
        answers = [
            clip_iqa.clip_image_quality_assessment(as_batch(image), data_range=255, prompts=prompts)
            for image in images
        ]
    theirs = np.array([[float(score) for score in answer.values()] for answer in answers])
    assert ours.shape == theirs.shape == (len(images), len(prompts))
    assert (np.ptp(theirs, axis=0) > 0.3).all()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_the_tolerance_sees_a_positional_embedding(piq_metric, archive, images):
    """What sets ``native`` apart from CLIP's own tower moves scores far more than the tolerance."""
    scorer = Scorer(f"openai@{archive}", "clip-iqa", resolution="model", decode="exact")
    size = scorer.tower.preprocess.size
    image = images[0][: size[0], : size[1]]
    with_positions = scorer.score(image).score
    assert abs(float(with_positions[0]) - float(piq_metric(as_batch(image))[0, 0])) > 1e-3


def test_learned_prompts_are_pyiqas_clipiqa_plus(archive, images):
    """CLIP-IQA+ with random context vectors: text features, and scores of photographs."""
    pytest.importorskip(
        "pyiqa", reason="pyiqa is not installed: .ci/run installs it, without what it asks for"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pyiqa's and OpenAI's own imports, and of torch.jit
        from pyiqa.archs.clipiqa_arch import CLIPIQA

        reference = CLIPIQA(model_type="clipiqa+", backbone=str(archive), pretrained=False).eval()
    context = torch.randn(reference.prompt_learner.ctx.shape, generator=torch.manual_seed(5))
    context *= 0.05
    towers = load_towers(f"openai@{archive}", "native")
    learner = PromptLearner(
        towers.text,
        [PromptPair("quality", "Good photo..", "Bad photo..")],
        context_length=16,
        position="middle",
        context="per-side",
    )
    with torch.no_grad():
        learner.context.copy_(context)
        reference.prompt_learner.ctx.copy_(context)
        theirs = reference.prompt_learner(reference.clip_model[0].float())
        torch.testing.assert_close(
            learner(towers.text)[0], torch.nn.functional.normalize(theirs), rtol=0, atol=1e-6
        )
        expected = torch.cat([reference(as_batch(image) / 255) for image in images])
        features = torch.cat([towers.image.encode(image[None]) for image in images])
        ours = learner.margins(towers.text, features, towers.logit_scale).sigmoid()
    assert np.ptp(expected.numpy()) > 0.1
    torch.testing.assert_close(ours, expected, rtol=0, atol=5e-6)
