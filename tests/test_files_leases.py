import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from selection.core.errors import InputError
from storage.files.leases import Leases, iter_claimed, run_once


def other_owner(folder: Path, name: str, *, host: str = "elsewhere", pid: int = 1) -> Path:
    file = folder / f"{name}.lease"
    file.write_text(json.dumps({"host": host, "pid": pid}))
    return file


def test_a_lease_is_held_by_one(tmp_path: Path) -> None:
    first, second = Leases(tmp_path), Leases(tmp_path)
    assert first.take("a")
    assert not second.take("a")
    assert second.take("b")
    first.release("a")
    assert second.take("a")
    first.release("a")  # no longer its own: left alone
    assert not first.take("a")
    second.release_all()
    assert not list(tmp_path.iterdir())


def test_a_lease_that_nobody_touches_expires(tmp_path: Path) -> None:
    leases = Leases(tmp_path, expiry_s=60)
    file = other_owner(tmp_path, "a")
    assert not leases.take("a")
    old = time.time() - 61
    os.utime(file, (old, old))
    assert leases.take("a")
    assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_dead_process_of_this_host_is_noticed_at_once(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    other_owner(tmp_path, "a", host=socket.gethostname(), pid=int(ended.stdout))
    assert Leases(tmp_path).take("a")
    other_owner(tmp_path, "b", host=socket.gethostname(), pid=os.getpid())
    assert not Leases(tmp_path).take("b")


def test_a_killed_child_that_nobody_has_waited_for_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other_owner(tmp_path, "a", host=socket.gethostname(), pid=child.pid)
    assert not Leases(tmp_path).take("a")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table
    try:
        assert Leases(tmp_path).take("a")
    finally:
        child.communicate()


def test_a_process_killed_while_it_signs_leaves_no_lease(tmp_path: Path) -> None:
    killed = f"""
import os, signal
from pathlib import Path
from storage.files.leases import Leases
leases = Leases(Path({str(tmp_path)!r}))
os.write = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
leases.take("a")
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert not (tmp_path / "a.lease").exists()
    assert Leases(tmp_path).take("a")
    assert list(tmp_path.glob(".tmp-*")) == []  # removed with the next look at the folder


def test_work_keeps_its_lease_alive(tmp_path: Path) -> None:
    leases = Leases(tmp_path, expiry_s=0.2)
    assert leases.take("a")
    time.sleep(0.5)
    file = other_owner(tmp_path, "a")  # as another host would see it
    time.sleep(0.1)
    assert not Leases(tmp_path, expiry_s=0.2).take("a")
    leases.release("a")
    assert not file.exists()


def test_everything_is_done_once_by_somebody(tmp_path: Path) -> None:
    names, done, order = [str(i) for i in range(40)], set[str](), list[tuple[int, str]]()

    def work(worker: int) -> None:
        leases = Leases(tmp_path)
        for number in iter_claimed(names, done.__contains__, leases, poll_s=0.01):
            order.append((worker, names[number]))
            time.sleep(0.001)
            done.add(names[number])
            leases.release(names[number])
        assert done == set(names)  # nobody leaves before all is done

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for _, name in order) == sorted(names)
    assert len({worker for worker, _ in order}) > 1


def test_units_of_a_worker_that_died_are_taken_over(tmp_path: Path) -> None:
    other_owner(tmp_path, "1", host=socket.gethostname(), pid=2**22 - 1)
    leases = Leases(tmp_path)
    seen = []
    for number in iter_claimed(["0", "1", "2"], lambda name: int(name) in seen, leases):
        seen.append(number)
        leases.release(str(number))
    assert seen == [0, 1, 2]


def test_no_lease_is_left_that_could_not_be_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match="disk is full"):
        Leases(tmp_path).take("a")
    monkeypatch.undo()
    assert Leases(tmp_path).take("a")


def test_two_that_need_the_same_do_it_once(tmp_path: Path) -> None:
    done, did = threading.Event(), list[bool]()

    def work() -> None:
        time.sleep(0.05)
        assert not done.is_set()
        done.set()

    def need() -> None:
        did.append(run_once(tmp_path, "a", done.is_set, work))

    threads = [threading.Thread(target=need) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(did) == [False, False, True]
    assert not run_once(tmp_path, "a", done.is_set, work)
    assert not list(tmp_path.glob("*.lease"))
