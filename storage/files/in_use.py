"""Who may not work in a workspace at once: those who make or copy texts, and `forget`.

Runs, exports, reports, bundles and checks share a lock file; `forget` has it alone. The system
gives it back when a process dies.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selection.core.errors import InputError
from storage.files.locks import opened, pauses, try_lock
from storage.files.workspace import Workspace


class Busy(InputError):
    """Somebody else is at work in the workspace."""


WAIT_S = 600.0  # for `forget`, which takes seconds to minutes
_alone: set[Path] = set()  # workspaces that this process has alone: its own exports go on


@contextmanager
def in_use(workspace: Workspace, wait_s: float = WAIT_S) -> Iterator[None]:
    """Keep `forget` out in the block. Raises InputError after `wait_s` seconds of its work.

    Whoever may not write in the workspace leaves no mark there, and waits for nobody.
    """
    root = workspace.root.resolve()
    if root in _alone or not os.access(root, os.W_OK):
        yield
        return
    with opened(root / ".in-use") as descriptor:
        if not any(try_lock(descriptor, fcntl.LOCK_SH) for _ in pauses(wait_s)):
            raise Busy(
                f"`saelect forget` is at work here; waited {wait_s:.0f} s",
                file=root,
                remedy="Repeat the command once it is done.",
            )
        yield


@contextmanager
def alone(workspace: Workspace, wait_s: float) -> Iterator[bool]:
    """Keep everybody else out in the block; yields False where that failed for `wait_s` seconds."""
    root = workspace.root.resolve()
    with opened(root / ".in-use") as descriptor:
        if not any(try_lock(descriptor, fcntl.LOCK_EX) for _ in pauses(wait_s)):
            yield False
            return
        _alone.add(root)
        try:
            yield True
        finally:
            _alone.discard(root)
