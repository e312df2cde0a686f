"""The lock of the catalog goes round in turn, whoever dies while holding it or waiting for it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from selection.core.errors import InputError
from storage.files import locks

ROOT = Path(__file__).resolve().parent.parent
WAITER = """
import sys
from pathlib import Path
from storage.files import locks
with locks.held_in_turn(Path(sys.argv[1]), 60):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


def n_waiting(path: Path) -> int:
    folder = path.with_name(".lock.turns")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def until_waiting(path: Path, n: int) -> None:
    deadline = time.monotonic() + 60
    while n_waiting(path) != n:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def start(path: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", WAITER, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_it_goes_to_who_has_waited_longest_even_where_others_ask_at_once(path: Path) -> None:
    order: list[str] = []

    def take(name: str, times: int = 1) -> None:
        for _ in range(times):  # asks again the moment it has released
            with locks.held_in_turn(path, 60):
                order.append(name)
                time.sleep(0.02)

    threads = [threading.Thread(target=take, args=("greedy", 4))]
    with locks.held_in_turn(path, 60):
        threads[0].start()
        until_waiting(path, 1)
        for number in range(5):
            threads.append(threading.Thread(target=take, args=(f"waiter {number}",)))
            threads[-1].start()
            until_waiting(path, number + 2)
    for thread in threads:
        thread.join(60)
    assert order == ["greedy", *(f"waiter {n}" for n in range(5)), *["greedy"] * 3]
    assert n_waiting(path) == 0


def test_only_one_holds_it(path: Path) -> None:
    inside: list[int] = []
    seen: list[int] = []

    def take() -> None:
        for _ in range(10):
            with locks.held_in_turn(path, 60):
                inside.append(1)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [1] * 60


def test_a_killed_waiter_keeps_nobody_waiting(path: Path) -> None:
    with locks.held_in_turn(path, 1):
        waiter = start(path)
        until_waiting(path, 1)
        os.kill(waiter.pid, signal.SIGKILL)
        waiter.communicate()
        assert n_waiting(path) == 1
    with locks.held_in_turn(path, 1):
        assert n_waiting(path) == 0


def test_a_killed_holder_keeps_nobody_waiting(path: Path) -> None:
    holder = start(path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with locks.held_in_turn(path, 1):
        pass


def test_a_wait_ends_with_the_name_of_the_holder_and_leaves_the_queue(path: Path) -> None:
    with (
        locks.held_in_turn(path, 1),
        pytest.raises(InputError, match=rf"PID {os.getpid()} on .*waited 0 s"),
        locks.held_in_turn(path, 0.05),
    ):
        pass
    assert n_waiting(path) == 0


def test_those_who_do_not_queue_are_waited_for_too(path: Path) -> None:
    with (
        locks.held(path, 1),
        pytest.raises(InputError, match="another process is writing"),
        locks.held_in_turn(path, 0.05),
    ):
        pass


def test_a_turn_taken_for_a_dead_ones_is_taken_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process looks at the new file in the moment before it is locked."""
    real = locks.try_lock
    looked: list[str] = []

    def look_first(descriptor: int, kind: int) -> bool:
        files = sorted(path.with_name(".lock.turns").iterdir())
        if not looked and files:
            looked.append(files[0].name)
            assert locks._removed_if_dead(files[0])
        return real(descriptor, kind)

    monkeypatch.setattr(locks, "try_lock", look_first)
    with locks.held_in_turn(path, 5):
        assert looked
        assert n_waiting(path) == 0


def test_a_lock_file_of_another_account_can_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everything, so the refusal of the system is played."""
    path = tmp_path / "lock"
    path.touch()
    real = os.open

    def refusing(file: Path, flags: int, mode: int = 0o777) -> int:
        if file == path and flags & os.O_RDWR:
            raise PermissionError
        return real(file, flags, mode)

    monkeypatch.setattr(os, "open", refusing)
    with locks.held_in_turn(path, 1), pytest.raises(InputError), locks.held(path, 0):
        pass
