"""Progress of long work, reported to listeners: a terminal, a log, or Prefect.

Stages call `stage(...)` and know nothing of terminals. Listeners are held in a context variable, so
two runs in one process do not mix.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from selection.core.printable import printable

log = logging.getLogger(__name__)

Advance = Callable[[int], None]
LINE_SECONDS = 30.0
BRIEF_WIDTH = 80


@dataclass(frozen=True)
class StageRecord:
    """A finished stage: name, result in a few words, seconds."""

    name: str
    detail: str
    seconds: float


@dataclass
class Listener:
    """The running stage and all finished ones; subclasses show them.

    total: amount of the running stage in `unit`; None where it is not known.
    stages: the finished stages.
    """

    stages: list[StageRecord] = field(default_factory=list)
    name: str = ""
    unit: str = ""
    total: int | None = None
    done: int = 0
    started: float = 0.0

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """A stage starts."""
        self.name, self.unit, self.total, self.done = name, unit, total, 0
        self.started = time.monotonic()

    def advance(self, amount: int) -> None:
        """`amount` more units are done."""
        self.done += amount

    def end(self, detail: str) -> None:
        """The stage ended; `detail` is its result in a few words."""
        self.stages.append(StageRecord(self.name, detail, self.seconds))

    def note(self, line: str) -> None:
        """A sentence that the stage leaves behind, such as a warning."""

    @property
    def seconds(self) -> float:
        """Seconds since the stage started."""
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def rate(self) -> str:
        """Units per second in words."""
        pace = self.done / self.seconds
        return f"{pace:,.0f} {self.unit}/s" if pace >= 10 else f"{pace:.1g} {self.unit}/s"


@dataclass
class Lines(Listener):
    """One line per finished stage and every 30 seconds, for CI, log files and pipes.

    What a run does twice with the same result, such as checking its inputs, is said once.

    is_brief: one line of a narrow terminal for a stage, without what it notes.
    """

    write: Callable[[str], object] = lambda line: sys.stderr.write(line + "\n")
    is_brief: bool = False
    last_line: float = 0.0
    shown: set[str] = field(default_factory=set)

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """A stage starts."""
        super().begin(name, total, unit)
        self.last_line = self.started

    def advance(self, amount: int) -> None:
        """Count; write a line every 30 seconds."""
        super().advance(amount)
        if time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            share = f" ({self.done / self.total:.0%})" if self.total else ""
            self.write(f"{self.name}: {self.done:,} {self.unit}{share}, {self.rate}")

    def end(self, detail: str) -> None:
        """Write the result and the time."""
        super().end(detail)
        speed = f", {self.rate}" if self.done and self.seconds > 1 else ""
        result = f"{self.name}: {detail or f'{self.done:,} {self.unit}'}"
        time_taken = f" in {self.seconds:.1f} s"
        if self.is_brief:
            room = BRIEF_WIDTH - len(time_taken)
            short = result if len(result) <= room else result[: room - 1].rstrip(" ,") + "…"
            self._show(result, f"{short}{time_taken}")
        else:
            self._show(result, f"{result}{time_taken}{speed}")

    def note(self, line: str) -> None:
        """Write the sentence."""
        if not self.is_brief:
            self._show(line, line)

    def _show(self, what: str, line: str) -> None:
        if what not in self.shown:
            self.shown.add(what)
            self.write(printable(line))


class Bars(Lines):
    """A rich progress bar per stage, with rate and time left, for people at a terminal."""

    def __init__(self, is_brief: bool = False) -> None:
        """Draw on standard error, so that standard output stays clean."""
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        super().__init__(
            write=lambda line: console.print(line, highlight=False, markup=False),
            is_brief=is_brief,
        )
        self.progress = progress.Progress(
            progress.TextColumn("{task.description:<10}"),
            progress.BarColumn(bar_width=30),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[unit]}  {task.fields[rate]}"),
            progress.TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """Start a bar."""
        super().begin(name, total, unit)
        self.task = self.progress.add_task(name, total=total, unit=unit, rate="")
        self.progress.start()

    def advance(self, amount: int) -> None:
        """Move the bar."""
        self.done += amount
        self.progress.update(self.task, advance=amount, rate=self.rate)

    def end(self, detail: str) -> None:
        """Replace the bar with one line."""
        self.progress.stop()
        self.progress.remove_task(self.task)
        super().end(detail)


@dataclass
class Stage:
    """Handle of a running stage: call `advance`, and set `detail` to its result.

    notes: sentences to show after the result.
    """

    advance: Advance
    detail: str = ""
    notes: list[str] = field(default_factory=list)


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())
_is_running: ContextVar[bool] = ContextVar("is_running", default=False)


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Report to these listeners too, within the block."""
    token = _listeners.set((*_listeners.get(), *listeners))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def stage(name: str, total: int | None = None, unit: str = "rows") -> Iterator[Stage]:
    """Announce a stage to all listeners and yield its `Stage`.

    Listeners know one stage at a time: one within another is a part of it, and only logged.
    """
    listeners = () if _is_running.get() else _listeners.get()

    def advance(amount: int) -> None:
        for listener in listeners:
            listener.advance(amount)

    handle, started = Stage(advance), time.monotonic()
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
            for line in handle.notes:
                listener.note(line)
        for line in handle.notes:
            log.info("%s: %s", name, line)
        log.info("%s: %s (%.1f s)", name, handle.detail, time.monotonic() - started)


def for_terminal(is_brief: bool = False) -> Listener:
    """Bars at a terminal; lines in CI, in pipes and where TERM=dumb asks for them."""
    is_plain = os.environ.get("CI") or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return Lines(is_brief=is_brief) if is_plain else Bars(is_brief)
