"""Files that are either whole or not there: temporary name, sync, rename; a folder's manifest last.

A process may be killed at any byte. Readers therefore trust a file by its final name and a folder
by its manifest, and ignore whatever begins with `.tmp-`.
"""

import errno
import itertools
import json
import logging
import os
import shutil
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selection.core.errors import InputError
from selection.core.json_text import parsed
from selection.core.numbers import size

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
TEMP_PREFIX = ".tmp-"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_numbers = itertools.count()  # two threads of a process may write the same name at once


def temp_path(final: Path) -> Path:
    """A temporary name beside `final`, unique: `.tmp-<host>-<pid>-<n>-<name>`.

    The same folder, because a rename is atomic only within one file system.
    """
    return final.with_name(f"{TEMP_PREFIX}{_HOST}-{os.getpid()}-{next(_numbers)}-{final.name}")


def is_temp(path: Path) -> bool:
    """Whether a file or folder has a temporary name, or lies in such a folder."""
    return any(part.startswith(TEMP_PREFIX) for part in path.parts)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, sync it, and rename it to `path`.

    A crash leaves the old content of `path` or the new one, never a mixture. Parent folders are
    made. Raises InputError when the disk is full; any failure removes the temporary file.
    """
    temp = temp_path(path)
    with full_disk_explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temp)
            sync_file(temp)
            os.replace(temp, path)
            sync_folder(path.parent)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes so that `path` is whole or untouched."""
    write_atomically(path, lambda temp: _write_all(temp, content))


def write_json(path: Path, value: object) -> None:
    """Write a JSON file for people and programs, whole or not at all."""
    write_bytes(path, json_bytes(value))


def write_arrays(path: Path, arrays: "NDArray[Any] | Mapping[str, NDArray[Any]]") -> None:
    """Write an array as .npy, or several by their names as .npz, whole or not at all."""
    import numpy as np  # commands that only read the catalog need none

    def write(temp: Path) -> None:
        with temp.open("wb") as file:
            if isinstance(arrays, Mapping):
                np.savez(file, **arrays)  # type: ignore[arg-type]
            else:
                np.save(file, arrays)

    write_atomically(path, write)


def json_bytes(value: object) -> bytes:
    """JSON for people and programs: indented, UTF-8, keys in the order given."""
    return f"{json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode()


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object that saelect wrote. Raises InputError when it is missing or altered."""
    try:
        value = parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "the file is missing", file=path, remedy="Run the step that writes it again."
        ) from None
    except ValueError as error:
        raise InputError(
            f"not readable as JSON ({error})",
            file=path,
            line=getattr(error, "lineno", None),
            remedy="The file was changed by hand or by another program; delete it and run again.",
        ) from None
    if not isinstance(value, dict):
        raise InputError(
            "expected a JSON object", file=path, value=value, remedy="Delete it and run again."
        )
    return value


def is_complete(folder: Path) -> bool:
    """Whether a folder was published whole: its manifest is written last."""
    return (folder / MANIFEST).is_file()


def publish_folder(temp: Path, final: Path) -> bool:
    """Give a finished folder its final name; returns whether this one was published.

    temp:  folder beside `final` whose files are already synced, its manifest among them.
    The first complete folder counts: when `final` has a manifest already, `temp` is discarded
    and the answer is False. A half-written `final` (no manifest) is replaced.
    Raises ValueError when `temp` has no manifest.
    """
    if not is_complete(temp):
        raise ValueError(f"{temp} has no {MANIFEST}: write it last, then publish.")
    with full_disk_explained(final):
        sync_folder(temp)
        while not is_complete(final):
            try:
                os.rename(temp, final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not is_complete(final):  # else another process was first
                    shutil.rmtree(final, ignore_errors=True)
            else:
                sync_folder(final.parent)
                return True
    shutil.rmtree(temp, ignore_errors=True)
    return False


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk: a rename alone does not survive a power cut."""
    sync_file(folder)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write where `folder` is, or where it would be made."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def ensure_free(folder: Path, need_bytes: int, what: str) -> None:
    """Refuse work that will not fit.

    what: what needs the room, for the message, e.g. "shards of 115,000 samples".
    Raises InputError when fewer than `need_bytes` are free.
    """
    free = free_bytes(folder)
    if free < need_bytes:
        raise InputError(
            f"{what} will need about {size(need_bytes)},"
            f" but only {size(free)} are free on this disk",
            file=folder,
            remedy="Free some room, or put the workspace on another disk with --workspace DIR.",
        )


def remove_stale_temps(folder: Path, older_than_s: float) -> int:
    """Remove what killed processes left behind; returns how many entries went.

    Only names that begin with `.tmp-`, directly in `folder`: those of processes of this machine
    that have ended, and others that have not changed for `older_than_s` seconds.
    """
    if not folder.is_dir():
        return 0
    removed = 0
    for entry in sorted(folder.glob(f"{TEMP_PREFIX}*")):
        if _owner_has_ended(entry.name) or _age_s(entry) >= older_than_s:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
            removed += 1
            log.info("removed %s, left behind by a stopped run", entry)
    return removed


def process_has_ended(pid: int) -> bool:
    """Whether a process of this machine has ended; False when unsure."""
    try:
        os.kill(pid, 0)
        # A killed child stays in the table of processes until its parent asks how it ended.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, or no /proc
        return False
    return state == "Z"


def _owner_has_ended(name: str) -> bool:
    """Whether a temporary name is of a process of this machine that has ended."""
    host, _, rest = name.removeprefix(TEMP_PREFIX).partition("-")
    pid = rest.partition("-")[0]
    return host == _HOST and pid.isdecimal() and process_has_ended(int(pid))


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Turn a full disk (or quota) met in the block into InputError; other errors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise full_disk_error(path) from error


def full_disk_error(path: Path) -> InputError:
    """The error for a disk that filled up while `path` was written."""
    return InputError(
        f"the disk is full, or your quota is used up ({size(free_bytes(path.parent))}"
        " free); nothing half-written was kept",
        file=path,
        remedy="Free some room, or use another disk with --workspace DIR, and run the same command"
        " again: finished work is reused.",
    )


def _write_all(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)


def _age_s(entry: Path) -> float:
    """Seconds since the newest change of an entry or of what lies directly in it."""
    try:
        entries = [entry, *entry.iterdir()] if entry.is_dir() else [entry]
        return time.time() - max(e.stat().st_mtime for e in entries)
    except FileNotFoundError:  # its owner has just renamed it
        return 0.0
