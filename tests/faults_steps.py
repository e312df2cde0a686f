"""Work that ends before one of its steps, as by kill -9, in a child of this process.

A step is a name that is given, replaced or removed in the file system.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_STEPS = ("rename", "replace", "unlink", "rmdir", "link", "mkdir")
_STOPPED, _FAILED = 9, 1


def n_steps(work: Callable[[], object]) -> int:
    """Number of the steps of some work, which is done."""
    read, write = os.pipe()
    if not (child := os.fork()):
        _do(work, 0, write)
    os.close(write)
    with os.fdopen(read) as said:
        number = said.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "it failed, see above"
    return int(number)


def stop_before(step: int, work: Callable[[], object]) -> None:
    """Begin some work and end before a step of it, counted from 1."""
    if not (child := os.fork()):
        _do(work, step, None)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == _STOPPED, f"not stopped before step {step}, but ended with {ended}"


def spread(total: int, n: int, first: int = 1) -> Iterator[int]:
    """N steps of a total, evenly spaced, from `first` on; all of them for 0."""
    wanted = range(first, total + 1) if not n else {*np.linspace(first, total, n).astype(int)}
    return iter(sorted(int(step) for step in wanted))


def _do(work: Callable[[], object], step: int, said: int | None) -> None:
    """Do the work in a child, which ends here. said: where the number of steps is written."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*names: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == step:
                os._exit(_STOPPED)
            return real(*names, **options)

        return call

    sys.dont_write_bytecode = True  # else the first child has more steps than the next
    try:
        for name in _STEPS:
            setattr(os, name, counted(getattr(os, name)))
        work()
        if said is not None:
            os.write(said, str(done).encode())
        os._exit(0)
    except BaseException:  # noqa: BLE001 - nothing of the child may reach the parent's code
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_FAILED)
