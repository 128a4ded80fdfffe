"""pyiqa's ``clipiqa`` on one file after the other, as its README shows.

``backbone`` is an option of its own that takes a file; nothing is patched. Its prompts are five
pairs, whose text features it computes for each image anew.
"""

from pathlib import Path

import pyiqa

from benchmarks.peer_scripts.common import arguments, write

if __name__ == "__main__":
    options = arguments()
    metric = pyiqa.create_metric("clipiqa", device="cpu", backbone=str(options.weights))
    paths = sorted(map(str, Path(options.images).glob("*.jpg")))
    write(options.output, paths, [metric(path).item() for path in paths])
