"""Progress of long work, told to whoever listens: a terminal, a log, or Prefect.

Stages call `stage(...)` and know nothing of terminals. The listener is a context variable, so two
runs in one process do not mix.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

log = logging.getLogger(__name__)

Advance = Callable[[int], None]


class Listener(Protocol):
    """What a listener must be able to do."""

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """A stage starts; `total` is None where the amount is not known."""

    def advance(self, amount: int) -> None:
        """`amount` more units are done."""

    def end(self, detail: str) -> None:
        """The stage ended; `detail` says in a few words what came out."""


@dataclass
class Lines:
    """One line per finished stage, for CI, log files and pipes."""

    write: Callable[[str], None]
    name: str = ""
    unit: str = ""
    done: int = 0
    started: float = 0.0
    spoken: float = 0.0
    total: int | None = None

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """Remember the stage; a line appears when it ends or every 30 seconds."""
        self.name, self.unit, self.total, self.done = name, unit, total, 0
        self.started = self.spoken = time.monotonic()

    def advance(self, amount: int) -> None:
        """Count, and speak every 30 seconds."""
        self.done += amount
        if time.monotonic() - self.spoken > 30:
            self.spoken = time.monotonic()
            share = f" ({self.done / self.total:.0%})" if self.total else ""
            self.write(f"{self.name}: {self.done:,} {self.unit}{share}, {self._rate()}")

    def end(self, detail: str) -> None:
        """Say what came out and how long it took."""
        seconds = time.monotonic() - self.started
        speed = f", {self._rate()}" if self.done and seconds > 1 else ""
        self.write(
            f"{self.name}: {detail or f'{self.done:,} {self.unit}'} in {seconds:.1f} s{speed}"
        )

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        return f"{self.done / seconds:,.0f} {self.unit}/s"


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage said of itself: name, what came out, seconds."""

    name: str
    detail: str
    seconds: float


@dataclass
class Clock:
    """Remembers every finished stage."""

    stages: list[StageRecord] = field(default_factory=list)
    name: str = ""
    started: float = 0.0

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """A stage starts."""
        self.name, self.started = name, time.monotonic()

    def advance(self, amount: int) -> None:
        """Nothing to remember."""

    def end(self, detail: str) -> None:
        """Keep it with its time."""
        self.stages.append(StageRecord(self.name, detail, time.monotonic() - self.started))


class Bars:
    """A rich progress bar per stage, with rate and time left, for people at a terminal."""

    def __init__(self) -> None:
        """Draw on standard error, so that standard output stays clean."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}  {task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )
        self.lines = Lines(lambda line: self.console.print(line, highlight=False, markup=False))

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """Start a bar."""
        self.lines.begin(name, total, unit)
        self.task = self.progress.add_task(name, total=total, unit=unit, rate="")
        self.progress.start()

    def advance(self, amount: int) -> None:
        """Move the bar."""
        self.lines.done += amount
        self.progress.update(self.task, advance=amount, rate=self.lines._rate())

    def end(self, detail: str) -> None:
        """Replace the bar with one line."""
        self.progress.stop()
        self.progress.remove_task(self.task)
        self.lines.end(detail)


@dataclass
class Stage:
    """Handle of a running stage: call `advance`, and set `detail` to what came out."""

    advance: Advance
    detail: str = ""
    started: float = field(default_factory=time.monotonic)


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())
_is_running: ContextVar[bool] = ContextVar("is_running", default=False)


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Tell these listeners too, within the block."""
    token = _listeners.set((*_listeners.get(), *listeners))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def stage(name: str, total: int | None = None, unit: str = "rows") -> Iterator[Stage]:
    """Announce a stage to all listeners and hand out its `Stage`.

    Listeners know one stage at a time: one within another is a part of it, and only logged.
    """
    listeners = () if _is_running.get() else _listeners.get()

    def advance(amount: int) -> None:
        for listener in listeners:
            listener.advance(amount)

    handle = Stage(advance)
    token = _is_running.set(True)
    for listener in listeners:
        listener.begin(name, total, unit)
    try:
        yield handle
    except BaseException:
        handle.detail = "stopped"
        raise
    finally:
        _is_running.reset(token)
        for listener in listeners:
            listener.end(handle.detail)
        log.info("%s: %s (%.1f s)", name, handle.detail, time.monotonic() - handle.started)


def _write_line(line: str) -> None:
    sys.stderr.write(line + "\n")


def for_terminal() -> Listener:
    """Bars at a terminal; lines in CI, in pipes and where NO_COLOR or TERM=dumb ask for it."""
    plain = os.environ.get("CI") or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    if plain:
        return Lines(_write_line)
    return Bars()
