"""This project's ``Scorer`` in a plain script."""

from benchmarks.peer_scripts.common import arguments, write
from iqa_core import Scorer

if __name__ == "__main__":
    options = arguments()
    scorer = Scorer(
        f"{options.model}@{options.weights}",
        options.pairs,
        resolution=options.resolution,
        decode=options.decode,
    )
    paths = sorted(options.images.glob("*.jpg"))
    scores = scorer.score(paths)
    write(options.output, list(map(str, paths)), scores.score.tolist())
