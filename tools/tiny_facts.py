"""Write what jobs use of `tiny` without loading it, after its weights or the named prompt sets changed.

    python -m tools.tiny_facts

These are the facts of the model and the text features of the named sets, in iqa_core/weights/.
"""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import save_file

from iqa_core.clip.embedded import PROMPTS_FILE
from iqa_core.clip.facts import TINY_FACTS, ModelFacts
from iqa_core.clip.load import TINY, load_towers
from iqa_core.prompts.pairs import NAMED_PAIRS


def main() -> None:
    """Write both files."""
    towers = load_towers(TINY)
    facts = ModelFacts.of(towers).to_json()
    TINY_FACTS.write_text(json.dumps(facts, indent=4) + "\n", encoding="utf-8")
    pairs = [pair for named in NAMED_PAIRS.values() for pair in named]
    texts = sorted({side for pair in pairs for side in (pair.positive, pair.negative)})
    features = np.concatenate([towers.text.encode([text]).numpy() for text in texts])
    about = {"digest": towers.digest, "texts": json.dumps(texts)}
    save_file({"features": features}, PROMPTS_FILE, metadata=about)
    print(f"{PROMPTS_FILE.name}: {len(texts)} prompts; {TINY_FACTS.name}: {towers.digest}")


if __name__ == "__main__":
    main()
