"""The Ray entry points: one subcommand of ``iqa`` for each module, thin around ``iqa_core``."""

import os

# Ray's calls start a Ray of their own where there is none: so would a thread of Ray Data that
# outlives ours. Ray reads this when it is imported.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
