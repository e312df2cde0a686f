"""Faults of runs under `saelect serve`: what dies, how the run ends, what the next one finds."""

import errno
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from storage.files import locks
from storage.files.atomic import is_complete
from storage.files.leases import Leases
from tests.server_harness import Served, start_serving, stop_serving

DEPLOYMENT = "select-data-from-config/select-data-from-config"
STATE_SECONDS = 120.0  # what a run may take to its right state, from `serve` being up
RUN_SECONDS = 600.0
FULL_SECONDS = 20.0


@dataclass
class Disturbed:
    """One disturbed run.

    state:   in which it ended, and after how many seconds from the fault (or from `serve` being up
             again, where it was killed too).
    wrong:   what is not as it must be; empty when all is well.
    """

    state: str = ""
    seconds: float = 0.0
    rerun_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Round:
    """One fault in a workspace without results.

    at_unit: shards that are complete when the fault comes.
    """

    server: Served
    config: Path
    at_unit: int
    result: Disturbed = field(default_factory=Disturbed)

    def start(self) -> str:
        """A run of the config."""
        return self.server.start_run(DEPLOYMENT, {"config_path": str(self.config)})

    def wait_until_at_work(self, run_id: str) -> None:
        """Until `at_unit` shards are there."""
        deadline = time.monotonic() + RUN_SECONDS
        while units_done(self.server.workspace) < self.at_unit:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the run did not come to work: {self.server.state(run_id)}")
            time.sleep(0.01)

    def expect_end(self, run_id: str, *states: str) -> None:
        """Wait for the state that this fault must end in; then nothing may be held."""
        self.expect_state(run_id, *states)
        self.result.wrong += held_locks(self.server.workspace)

    def expect_state(self, run_id: str, *states: str) -> None:
        """Wait for the state that this fault must end in."""
        begun = time.monotonic()
        limit = RUN_SECONDS if "COMPLETED" in states else STATE_SECONDS
        state = self.server.wait_for_end(run_id, limit)
        self.result.state, self.result.seconds = state["type"], time.monotonic() - begun
        if state["type"] not in states:
            self.result.wrong.append(f"{state['type']} ({state.get('message')})")

    def again(self, run_id: str | None = None) -> None:
        """A new run with equal parameters, or Retry of the old one; it must complete."""
        begun = time.monotonic()
        if run_id is None:
            run_id = self.start()
        else:
            self.server.retry(run_id)
            time.sleep(1.0)  # the old end is gone by then
        state = self.server.wait_for_end(run_id, RUN_SECONDS)
        self.result.rerun_seconds = time.monotonic() - begun
        if state["type"] != "COMPLETED":
            self.result.wrong.append(f"the rerun {state['type']} ({state.get('message')})")


def killed_flow(round_: Round) -> None:
    """Kill -9 of the run's process; a new run with equal parameters."""
    run_id = round_.start()
    round_.wait_until_at_work(run_id)
    for pid in round_.server.pids_of_runs():
        os.kill(pid, signal.SIGKILL)
    round_.expect_end(run_id, "CRASHED")
    round_.again()


def killed_worker(round_: Round) -> None:
    """Kill -9 of the worker: its run ends with it, the next one gets a new worker."""
    run_id = round_.start()
    round_.wait_until_at_work(run_id)
    os.kill(round_.server.pid_of("prefect"), signal.SIGKILL)
    round_.expect_end(run_id, "CRASHED")
    round_.again()


def killed_server(round_: Round) -> None:
    """Kill -9 of the server: it comes back, and the run with it."""
    run_id = round_.start()
    round_.wait_until_at_work(run_id)
    os.kill(round_.server.pid_of("flows.server.app"), signal.SIGKILL)
    round_.expect_end(run_id, "COMPLETED")


def killed_everything(round_: Round) -> None:
    """Kill -9 of `serve`, server, worker and run; `serve` is started again; Retry from the page."""
    run_id = round_.start()
    round_.wait_until_at_work(run_id)
    round_.server.kill_everything()
    again = start_serving(round_.server.workspace, round_.server.port, [round_.config.parent])
    round_.server.process = again.process
    round_.expect_end(run_id, "CRASHED")
    round_.again(run_id)


def cancelled(round_: Round) -> None:
    """Cancel from the page; a new run."""
    run_id = round_.start()
    round_.wait_until_at_work(run_id)
    round_.server.cancel(run_id)
    round_.expect_end(run_id, "CANCELLED")
    round_.again()


def full_disk(round_: Round) -> None:
    """No byte is left on the disk, for the server's database neither; then there is room again."""
    run_id = round_.start()
    round_.wait_until_at_work(run_id)
    ballast = round_.server.workspace / "ballast"
    fill_disk(ballast)
    deadline = time.monotonic() + FULL_SECONDS
    while round_.server.pids_of_runs() and time.monotonic() < deadline:
        time.sleep(0.2)
    ballast.unlink()
    round_.expect_end(run_id, "FAILED", "CRASHED")
    round_.again(run_id)


def two_at_once(round_: Round) -> None:
    """Two equal runs at the same time: both complete, and no vector is computed twice."""
    runs = [round_.start(), round_.start()]
    round_.expect_state(runs[0], "COMPLETED")  # the other may hold what it needs
    round_.expect_end(runs[1], "COMPLETED")
    if not round_.result.wrong:
        (first, n_vectors), (second, _) = (vectors_of(round_.server, run_id) for run_id in runs)
        if first + second != n_vectors:
            round_.result.wrong.append(f"{first} + {second} of {n_vectors} vectors were computed")


KINDS: dict[str, Callable[[Round], None]] = {
    "flow": killed_flow,
    "worker": killed_worker,
    "server": killed_server,
    "everything": killed_everything,
    "cancel": cancelled,
    "disk full": full_disk,
    "two at once": two_at_once,
}


class Arena:
    """One workspace under one `serve`, emptied before every round."""

    def __init__(self, root: Path, config: Path, n_units: int) -> None:
        """Nothing is started yet."""
        self.root, self.config, self.n_units = root, config, n_units
        self.server: Served | None = None

    def disturb(self, kind: str, rng: random.Random) -> tuple[str, Disturbed]:
        """One round of a kind; what was done when, and what came of it."""
        if self.server is None:
            self.root.mkdir(parents=True)
            self.server = start_serving(self.root, data=[self.config.parent])
        empty(self.root)
        round_ = Round(self.server, self.config, rng.randrange(1, self.n_units))
        KINDS[kind](round_)
        injected = "" if kind == "two at once" else f"at unit {round_.at_unit} of {self.n_units}"
        return injected, round_.result

    def close(self) -> None:
        """End `serve`."""
        if self.server is not None:
            stop_serving(self.server)


def empty(root: Path) -> None:
    """Remove everything but the server's own."""
    for entry in root.iterdir():
        if entry.is_dir() and entry.name != ".server":
            shutil.rmtree(entry)
        elif entry.is_file():
            entry.unlink()
    for name in ("reports", "exports"):  # which the server serves
        (root / name).mkdir()


def units_done(root: Path) -> int:
    """Complete shards."""
    return sum(is_complete(unit) for unit in root.glob("shards/*/*"))


def vectors_of(server: Served, run_id: str) -> tuple[int, int]:
    """Vectors that a run computed, and all that its pool has, as its page says."""
    pages = [str(a["data"]) for a in server.artifacts(run_id) if a["type"] == "markdown"]
    words = r"([\d,]+) vectors computed, ([\d,]+) reused(?:, ([\d,]+) by other workers)?"
    found = [m.groups("0") for page in pages for m in re.finditer(words, page)]
    counts = [int(number.replace(",", "")) for number in found[0]]
    return counts[0], sum(counts)


def held_locks(root: Path) -> list[str]:
    """Locks and leases that the next run would have to wait for."""
    held = [f"{name} is held" for name in (".catalog-lock",) if locks.is_shared(root / name)]
    for lease in (*root.glob(".leases/*.lease"), *root.glob("shards/*/.leases/*.lease")):
        mine = Leases(lease.parent)
        if mine.take(lease.stem):
            mine.release(lease.stem)
        else:
            held.append(f"{lease.relative_to(root)} is held")
    return held


def fill_disk(ballast: Path) -> None:
    """Take all that is left on the disk, down to the last page."""
    with ballast.open("wb") as out:
        for size in (2**24, 2**20, 2**12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(out.fileno(), out.seek(0, os.SEEK_END), size)
    try:
        (ballast.parent / "probe").write_bytes(b"x" * 8192)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    else:
        raise RuntimeError("the disk is not full")
    finally:
        (ballast.parent / "probe").unlink(missing_ok=True)
