"""``python -m jobs ...``: the same as ``iqa ...``, for ``ray job submit``."""

import sys

from .cli import main

sys.exit(main())
