"""A pool is ranked shard by shard: memory does not grow with it, but for what a row's score is."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from selection.core.sparse import take
from selection.representation.represent import UnitReport
from storage.pools.shards import write_shard
from tests.sparse_strategies import random_rows

REPORT = UnitReport(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "full")
UNIT, N_LATENTS = 2000, 1000

RANK = """
import sys
from pathlib import Path
import numpy as np
from selection.picking.ranking import rank
from selection.similarity.queries import exemplar_queries
from selection.similarity.ranking_input import PoolScorer
from selection.similarity.sources import PoolSpaces
from selection.similarity.spaces import JoinedSpaces, Space
from storage.pools.vectors import PoolVectors
from storage.pools.shards import open_shards

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

for folder in map(Path, sys.argv[2:]):
    shards = open_shards(folder)
    keys = np.concatenate([shard.keys() for shard in shards.shards])
    vectors = PoolVectors(shards, keys, np.ones(len(keys), np.bool_))
    for _ in vectors.blocks(verify=True):
        pass
    spaces = JoinedSpaces([Space("s", np.ones(1000, np.int64))], normalize=sys.argv[1] == "l1")
    rows = spaces.rows((vectors.gather_vectors(np.arange(8)),))
    scorer = PoolScorer(spaces, {"t": exemplar_queries(rows, spaces.weights, "mean")}, "mean")
    pool = PoolSpaces(("s",), (vectors,))
    scores = scorer.scores(pool)
    assert rank(scores["t"], np.ones(len(keys), np.bool_)).scores[0] > 0.1
    print(len(keys), peak())
"""


def test_ranking_six_times_the_pool_takes_no_more_memory(tmp_path: Path) -> None:
    rows, rng = random_rows(UNIT, N_LATENTS, 0.4, seed=1), np.random.default_rng(0)
    for name, n_units in (("small", 3), ("large", 18)):
        for number in range(n_units):
            keys = rng.integers(0, 256, (UNIT, 16), dtype=np.uint8)
            mine = take(rows, rng.permutation(UNIT))
            write_shard(tmp_path / name, f"u{number:02}", keys, mine, REPORT)
    n_bytes = sum(f.stat().st_size for f in (tmp_path / "large").rglob("*.npy"))
    assert n_bytes > 70e6
    for normalize in ("none", "l1"):
        done = subprocess.run(
            [sys.executable, "-c", RANK, normalize, tmp_path / "small", tmp_path / "large"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (_, small), (n, large) = (map(int, line.split()) for line in done.stdout.splitlines())
        assert n == 18 * UNIT
        assert large - small < 20, (small, large)  # of the 70 MB and more
