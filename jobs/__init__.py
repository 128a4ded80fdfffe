"""The Ray entry points: one subcommand of ``iqa`` for each module, thin around ``iqa_core``."""
