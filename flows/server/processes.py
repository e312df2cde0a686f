"""Child processes of `serve`: with logs of their own, ended in order and with all they started."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 8.0
Process = subprocess.Popen[bytes]


def start(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """A new process, which ends when this one dies, however that happens.

    arguments: of `python -m`. log: file that its output is appended to.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=dict(environment),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for `serve` alone, which ends them in order.
            preexec_fn=_die_with_parent,
        )


def stop(process: Process) -> None:
    """End it politely, then by force what is left of it and of all that it has started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent dies; elsewhere it would be an orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
