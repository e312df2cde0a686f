"""Child processes of `serve`: with logs of their own, restarted when they die, ended in order."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 8.0
MAX_RESTARTS = 20


@dataclass
class Child:
    """One process that lives as long as `serve`.

    arguments: of `python -m`. log: file that its output is appended to.
    """

    name: str
    arguments: list[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    n_restarts: int = 0

    def start(self) -> None:
        """Start the process; it ends when this one dies, however that happens."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                env=dict(self.environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for `serve` alone, which ends them in order.
                preexec_fn=_die_with_parent,
            )

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.process.poll() if self.process else None

    def restart_if_dead(self) -> int | None:
        """Start it again if it died; returns its exit code then."""
        code = self.exit_code
        if code is not None and self.n_restarts < MAX_RESTARTS:
            self.n_restarts += 1
            self.start()
        return code

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End it politely, then by force."""
        if self.process is None or self.exit_code is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log_tail(self, n_lines: int = 12) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-n_lines:])


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent dies; elsewhere it would be an orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
