"""Scores by several processes: each takes every s-th shard, and the merge is exact.

A helper is `python -m flows.stages.rank.processes OUT`, a fresh process that reads its job from
standard input and writes its scores; it loads neither a model nor torch. A score depends on its own
vector alone, so the bits are those of one process. What a dead helper leaves undone this process
does itself.
"""

import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selection.similarity.ranking_input import PoolScorer, Scores, merge_scores
from selection.similarity.sources import PoolSpaces, VectorMask, ignore
from storage.files.atomic import temp_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a process scores: `share` of the shards, of these the vectors in `only`."""

    scorer: PoolScorer
    vectors: PoolSpaces
    only: VectorMask | None
    share: tuple[int, int]

    def scores(self, advance: Callable[[int], object] = ignore) -> Scores:
        """Scores of all pool rows; those of other shares are 0."""
        return self.scorer.scores(self.vectors, only=self.only, share=self.share, advance=advance)


def scores_by_processes(
    scorer: PoolScorer,
    vectors: PoolSpaces,
    n_processes: int,
    scratch: Path,
    only: VectorMask | None = None,
    advance: Callable[[int], object] = ignore,
) -> Scores:
    """Scores of all pool rows by so many processes, this one among them.

    only: as in `VectorSource.blocks`. scratch: folder for what helpers hand over.
    """
    spaces = PoolSpaces(vectors.names, vectors.parts)  # Sources of a run cannot travel.
    jobs = [Job(scorer, spaces, only, (i, n_processes)) for i in range(n_processes)]
    out = temp_path(scratch / "scores")
    helpers = [_start(job, out) for job in jobs[1:]]
    try:
        scores = jobs[0].scores(advance)
        for job, helper in zip(jobs[1:], helpers, strict=True):
            merge_scores(scores, _collect(job, helper, out))
        return scores
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.terminate()
                helper.wait()
        shutil.rmtree(out, ignore_errors=True)


def _start(job: Job, out: Path) -> "subprocess.Popen[bytes]":
    """A process with its job; never a fork, which is not safe after torch."""
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flows.stages.rank.processes", str(out)]
    helper = subprocess.Popen(command, stdin=subprocess.PIPE, env=dict(os.environ))
    assert helper.stdin is not None
    try:
        with helper.stdin as stream:
            pickle.dump(job, stream, pickle.HIGHEST_PROTOCOL)
    except BrokenPipeError:
        log.warning("a scoring process ended before it had its job")
    return helper


def _collect(job: Job, helper: "subprocess.Popen[bytes]", out: Path) -> Scores:
    """What a helper scored, or the same by this process where it died."""
    if helper.wait() == 0:
        scores: Scores = pickle.loads(_file(out, job).read_bytes())  # From our own helper.
        return scores
    log.warning("a scoring process ended with code %d; its share is done here", helper.returncode)
    return job.scores()


def _file(out: Path, job: Job) -> Path:
    return out / f"share-{job.share[0]}.pickle"


def main() -> None:
    """`python -m flows.stages.rank.processes OUT`, the job on standard input."""
    job: Job = pickle.load(sys.stdin.buffer)  # From the process that started this one.
    with _file(Path(sys.argv[1]), job).open("wb") as file:
        pickle.dump(job.scores(), file, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
