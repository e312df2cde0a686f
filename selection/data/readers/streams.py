"""Files of bytes and lines: plain, .gz or .zst, with every failure explained. No rows yet."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from selection.core.errors import InputError

COMPRESSIONS = (".gz", ".zst")
_CHUNK = 1 << 18  # bytes read at once


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a source: where it is, and what the user calls it."""

    path: Path
    name: str


@contextmanager
def open_bytes(path: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed by its suffix.

    name: how the user calls the file, for messages.
    Whatever goes wrong while opening or reading (missing rights, a damaged or cut archive) becomes
    InputError. Memory is flat: nothing is read ahead beyond a buffer.
    """
    from zstandard import ZstdError  # imported here: only this function needs it

    try:
        with path.open("rb") as file:
            yield _decompressed(file, path.suffix.lower())
    except (gzip.BadGzipFile, zlib.error, EOFError, ZstdError) as error:
        raise InputError(
            f"the compressed file is damaged or not what its name says ({error})",
            file=name,
            remedy="Copy or download it again, or name it without the compression's suffix.",
        ) from None
    except OSError as error:
        raise unreadable(name, error) from None


@contextmanager
def open_text(path: Path, name: str) -> Iterator[IO[str]]:
    """Open a UTF-8 text file (a byte order mark is skipped), decompressed by its suffix."""
    with open_bytes(path, name) as stream:
        yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def refuse_empty(file: DataFile) -> None:
    """Raise InputError for a file of no bytes, or one that cannot be looked at."""
    try:
        n_bytes = file.path.stat().st_size
    except OSError as error:
        raise unreadable(file.name, error) from None
    if n_bytes == 0:
        remedy = "Check the step that wrote it, or leave it out."
        raise InputError("the file is empty", file=file.name, remedy=remedy)


def unreadable(name: str, error: OSError) -> InputError:
    """The error for a file that the operating system does not let us read."""
    return InputError(
        f"cannot be read ({error.strerror or error})",
        file=name,
        remedy="Check that the file is there and that you may read it.",
    )


def plain_suffix(path: Path) -> str:
    """The suffix below a compression suffix, lower case: `.jsonl` for `a.JSONL.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def plain_stem(path: Path) -> str:
    """The file's name without its format and compression: `a` for `a.jsonl.gz`."""
    stem = path.name
    if path.suffix.lower() in COMPRESSIONS:
        stem = Path(stem).stem
    return Path(stem).stem


def _decompressed(file: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if suffix == ".zst":
        return io.BufferedReader(_ZstdStream(file), buffer_size=_CHUNK)
    return file


class _ZstdStream(io.RawIOBase):
    """Frames of zstandard as one stream of bytes.

    zstandard's own reader takes a file that was cut in the middle for a file that ends there;
    this one raises EOFError.
    """

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new_frame()
        self._file, self._rest, self._in_frame, self._left = file, b"", False, b""

    def readable(self) -> bool:
        """Yes: BufferedReader asks."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Fill `buffer` with decompressed bytes; 0 at the end of the last frame."""
        while not self._left:
            data = self._rest or self._file.read(_CHUNK)
            self._rest = b""
            if not data:
                if self._in_frame:
                    raise EOFError("it ends in the middle")
                return 0
            self._in_frame = True
            self._left = self._frame.decompress(data)
            if self._frame.eof:
                self._rest, self._in_frame = self._frame.unused_data, False
                self._frame = self._new_frame()
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
