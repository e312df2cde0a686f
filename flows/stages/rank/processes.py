"""Scores by several processes: each takes every s-th shard, and the merge is exact.

A helper is `python -m flows.stages.rank.processes OUT`, a fresh process that reads its job from
standard input and writes one array per target; it loads neither a model nor torch. A score depends
on its own vector alone, so the bits are those of one process. What a dead helper leaves undone
this process does itself.
"""

import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.stages.rank.score import joint_scores
from flows.stages.represent.spaces import JointTarget, JointVectors
from storage.files.atomic import temp_path
from storage.pools.shards import Shard, ShardSet
from storage.pools.vectors import PoolVectors

log = logging.getLogger(__name__)

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Part:
    """One space of a pool as it is sent to a helper: the very shards that this process sees."""

    folder: Path
    shards: list[Shard]
    keys: NDArray[np.uint8]
    usable: NDArray[np.bool_]

    def opened(self) -> PoolVectors:
        """The vectors."""
        return PoolVectors(ShardSet(self.folder, self.shards), self.keys, self.usable)


@dataclass(frozen=True)
class Job:
    """What a helper scores: `share` of the shards, as in `joint_scores`."""

    config: SelectConfig
    names: tuple[str, ...]
    parts: tuple[Part, ...]
    targets: Mapping[str, JointTarget]
    only: NDArray[np.bool_] | None
    share: tuple[int, int]

    def scores(self) -> Scores:
        """The work itself."""
        vectors = JointVectors(self.names, tuple(part.opened() for part in self.parts))
        return joint_scores(self.config, vectors, self.targets, only=self.only, share=self.share)


def scores_by_processes(
    config: SelectConfig,
    vectors: JointVectors,
    targets: Mapping[str, JointTarget],
    scratch: Path,
    *,
    only: NDArray[np.bool_] | None = None,
) -> Scores:
    """`joint_scores` by `compute.workers` processes, this one among them, or by a cluster.

    scratch: folder for what helpers hand over.
    """
    n = min(config.compute.workers, max(len(vectors.parts[0].shards), 1))
    if n == 1 or config.compute.task_runner == "ray":
        return joint_scores(config, vectors, targets, only=only)
    threads = config.compute.threads or max(1, config.compute.n_threads // n)
    compute = config.compute.model_copy(update={"threads": threads})
    config = config.model_copy(update={"compute": compute})
    parts = tuple(
        Part(part.shards.folder, part.shards.shards, part.keys, part.usable)
        for part in vectors.parts
    )
    jobs = [Job(config, vectors.names, parts, targets, only, (i, n)) for i in range(n)]
    out = temp_path(scratch / "scores")
    out.mkdir(parents=True)
    helpers = [_start(job, out) for job in jobs[1:]]
    try:
        found = joint_scores(config, vectors, targets, only=only, share=jobs[0].share)
        for job, helper in zip(jobs[1:], helpers, strict=True):
            _merge(found, _collect(job, helper, out))
        return found
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.terminate()
                helper.wait()
        shutil.rmtree(out, ignore_errors=True)


def _start(job: Job, out: Path) -> "subprocess.Popen[bytes]":
    """A process with its job; never a fork, which is not safe after torch."""
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
    """What a helper found, or the same by this process where it died."""
    if helper.wait() == 0:
        return {
            name: np.load(_file(out, job, number), allow_pickle=False)
            for number, name in enumerate(job.targets)
        }
    log.warning("a scoring process ended with code %d; its share is done here", helper.returncode)
    return job.scores()


def _merge(found: Scores, more: Scores) -> None:
    """Put another share in; rows that a share did not score are 0 in it, and no score is less."""
    for name, values in more.items():
        np.maximum(found[name], values, out=found[name])


def _file(out: Path, job: Job, number: int) -> Path:
    return out / f"share-{job.share[0]}-target-{number}.npy"


def help_with(job: Job, out: Path) -> None:
    """A helper's work."""
    for number, values in enumerate(job.scores().values()):
        np.save(_file(out, job, number), values)


def main() -> None:
    """`python -m flows.stages.rank.processes OUT`, the job on standard input."""
    job: Job = pickle.load(sys.stdin.buffer)  # From the process that started this one.
    help_with(job, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
