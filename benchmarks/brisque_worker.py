"""BRISQUE of images, for `benchmarks/tiny_quality.py --brisque PYTHON`.

Runs in an environment of its own, as the package does not run with NumPy 2:

    python3 -m venv brisque-env
    brisque-env/bin/pip install 'brisque[opencv-python-headless]==0.2.0' 'numpy<2'

Source: Mittal, Moorthy, Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP
2012 (the package ships a trained model). Each line of standard input is the path of a .npy with a uint8
RGB image; a line with its score (lower is better) goes to standard output.
"""

import sys

import numpy as np
from brisque import BRISQUE

model = BRISQUE()
for line in sys.stdin:
    print(float(model.score(np.load(line.rstrip("\n")))), flush=True)
