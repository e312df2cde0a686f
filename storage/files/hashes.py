"""Hashes of files, remembered by path, size, time of change and inode, so that each is read once.

One small JSON file of the workspace. Processes may write it at once: what one of them does not see
of another is hashed again.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from selection.core.hashing import content_id, file_sha256
from selection.core.json_text import parsed
from storage.files.atomic import write_json

SETTLED_S = 2.0  # a file changed later than this ago may change again within one tick of its clock


class FileHashes:
    """Remembered hashes; without a file they are remembered by this process alone."""

    def __init__(self, file: Path | None = None) -> None:
        """Read what is remembered in `file`; a damaged file counts as empty."""
        self._file, self._lock = file, threading.Lock()
        self._known = self._read()

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file, hashed now unless it is the file that was hashed before."""
        return self.remember("file", [path], lambda: file_sha256(path))

    def remember(self, kind: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
        """A hash that depends on these files alone: the remembered one, or what `compute` returns.

        kind: what is hashed; one file may have hashes of several kinds.
        """
        key, identity = content_id([kind, *(str(file.absolute()) for file in files)]), _stat(files)
        known = self._known.get(key)
        if isinstance(known, dict) and known.get("identity") == identity:
            return str(known["sha256"])
        sha256, now = compute(), time.time()
        is_settled = all(now - changed_ns / 1e9 > SETTLED_S for _, changed_ns, _ in identity)
        if is_settled and _stat(files) == identity:
            with self._lock:
                self._known[key] = {"sha256": sha256, "identity": identity}
                if self._file is not None:
                    write_json(self._file, self._read() | self._known)
        return sha256

    def _read(self) -> dict[str, object]:
        try:
            content = parsed(self._file.read_text(encoding="utf-8")) if self._file else {}
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _stat(files: Sequence[Path]) -> list[list[int]]:
    """Size, time of change in ns and inode of each file; links are followed."""
    stats = [file.stat() for file in files]
    return [[stat.st_size, stat.st_mtime_ns, stat.st_ino] for stat in stats]
