"""What the tests of training share: a cache as `iqa embed` writes it, learners, settings."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from iqa_core.prompts.ensemble import PromptEnsemble
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS
from iqa_core.tables.feature_cache import FeatureCache
from iqa_core.training.settings import Settings
from iqa_core.training.split import plan_training_data
from iqa_core.training.write import write_training_data

PAIRS = NAMED_PAIRS["pyiqa"][:3]
ROWS = 400
WIDTH = 128


def write_cache(folder, table, rows_per_part=90):
    """Write a feature cache as `iqa embed` leaves it."""
    (folder / "_run").mkdir(parents=True)
    (folder / "_run" / "fingerprint.json").write_text(json.dumps({"model": "tiny"}))
    (folder / "_run" / "plan.json").write_text("{}")
    for number, start in enumerate(range(0, len(table), rows_per_part)):
        part = table.slice(start, rows_per_part)
        pq.write_table(part, folder / f"part-{number:03d}.parquet", row_group_size=40)
    return FeatureCache(str(folder))


def written(cache, folder, prompts, **options):
    plan = plan_training_data(cache, len(prompts.names), **options)
    return write_training_data(cache, plan, folder, prompts)


def new_learner(towers, seed=0, contexts=1, pairs=PAIRS, **options):
    """Return an ensemble of contexts with consecutive seeds."""
    options = {"context_length": 4, **options}
    seeds = range(seed, seed + contexts)
    return PromptEnsemble([PromptLearner(towers.text, pairs, seed=one, **options) for one in seeds])


def settings(towers, **options):
    given = {"list_size": 32, "steps": 40, "checkpoint_steps": 10, "learning_rate": 5e-3, **options}
    return Settings(logit_scale=towers.logit_scale, **given)
