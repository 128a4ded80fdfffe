"""The programs that ``benchmarks.peers`` times: one script for each way of scoring a folder.

Each is ``python -m benchmarks.peer_scripts.NAME IMAGES OUTPUT MODEL WEIGHTS``, written as the
library's own documentation shows its use, and writes Parquet with the columns path and score.
"""
