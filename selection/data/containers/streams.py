"""Bytes of a file, wherever it is: decompressed, as UTF-8, with every failure explained."""

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from selection.core.errors import InputError

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.(?:gz|bz2|xz))$", re.I)
BOM = codecs.BOM_UTF8
_CHUNK = 1 << 18  # bytes read at once
_LONGEST_PATH = 4096  # bytes
_UNPACKED = {".gz": 4, ".zst": 4, ".bz2": 5, ".xz": 5, ".parquet": 8}  # text bytes per file byte
_DAMAGE = (
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    lzma.LZMAError,
)
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a source.

    location:  path, or URL for fsspec; `zip://MEMBER::ARCHIVE` for a file of an archive.
    name:      what the user calls it; secrets hidden.
    partition: columns that folders of its path name (`language=en`), with their values.
    """

    location: str
    name: str
    partition: tuple[tuple[str, str | None], ...] = ()

    @property
    def suffix(self) -> str:
        """The suffix below a compression suffix, lower case: `.jsonl` for `a.JSONL.gz`."""
        return plain_suffix(self.path)

    @property
    def last_suffix(self) -> str:
        """The last suffix, lower case, which says how the file is compressed."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def path(self) -> str:
        """The location without the archive that the file is in."""
        return self.location.partition("::")[0]

    def n_bytes(self) -> int:
        """Size in bytes; 0 where a server does not say it. Raises InputError."""
        try:
            if not is_url(self.location):
                return Path(self.location).stat().st_size
            filesystem, path = url_to_filesystem(self.location)
            return int(filesystem.size(path) or 0)
        except OSError as error:
            raise unreadable(self.name, error) from None

    def text_bytes(self) -> int:
        """Bytes of text in it, guessed from its size."""
        return self.n_bytes() * _UNPACKED.get(self.last_suffix, 1)

    def sha256(self) -> str:
        """SHA-256 of its bytes, in hex."""
        with self.opened() as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The bytes as they are. Raises InputError for a file that cannot be read."""
        try:
            if is_url(self.location):
                filesystem, path = url_to_filesystem(self.location)
                try:
                    stream = filesystem.open(path, "rb")
                except (RuntimeError, NotImplementedError) as error:  # of zipfile
                    raise _damaged(self, error, "Unpack it, and give its files.") from None
                with stream as file:
                    yield file
            else:
                with Path(self.location).open("rb") as local:
                    yield local
        except _DAMAGE as error:  # of a file in an archive
            raise _damaged(self, error) from None
        except OSError as error:
            raise unreadable(self.name, error) from None


def archive_protocol(path: str) -> str:
    """What fsspec calls an archive of this name: zip or tar; "" for any other file."""
    match = _ARCHIVE.search(path)
    if match is None:
        return ""
    return "zip" if match[1].lower() == "zip" else "tar"


def is_url(path: str) -> bool:
    """Whether a path is an address for fsspec, such as s3://bucket/pool.jsonl."""
    return "://" in path


def url_to_filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL, and the path in it. Raises InputError for one that is not there."""
    import fsspec

    options = {"tar": {"compression": "gzip"}} if url.lower().endswith(".tgz") else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except _DAMAGE as error:
        raise InputError(
            f"the archive is damaged or not what its name says ({error})",
            file=url.partition("::")[2],
            remedy="Copy or download it again, or unpack it and give what was in it.",
        ) from None
    except (ImportError, ValueError) as error:
        raise InputError(
            f"this address cannot be opened ({error})",
            file=url.split("://")[0] + "://",
            remedy="Install the package that fsspec names for it, e.g. s3fs or gcsfs.",
        ) from None
    return filesystem, str(path)


@contextmanager
def open_bytes(file: DataFile) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed by its suffix.

    Whatever goes wrong while opening or reading (missing rights, a damaged or cut archive) becomes
    InputError. Memory is flat: nothing is read ahead beyond a buffer.
    """
    from zstandard import ZstdError  # imported here: only this function needs it

    suffix = file.last_suffix
    with file.opened() as raw:
        try:
            yield _decompressed(raw, suffix)
        except (*_DAMAGE, ZstdError) as error:
            raise _damaged(file, error) from None
        except OSError as error:
            if suffix == ".bz2" and error.errno is None:
                raise _damaged(file, error) from None
            raise


def _damaged(file: DataFile, error: Exception, remedy: str = "") -> InputError:
    return InputError(
        f"the compressed file is damaged or not what its name says ({error})",
        file=file.name,
        remedy=remedy or "Copy or download it again, or name it without the compression's suffix.",
    )


@contextmanager
def open_utf8(file: DataFile, encoding: str | None = None) -> Iterator[BinaryIO]:
    """Open a text file as UTF-8, decompressed.

    encoding: what it is written in; None looks for the mark that UTF-16 and UTF-32 begin with.
    Raises InputError for bytes that are not of the given encoding, or for an unknown one.
    """
    with open_bytes(file) as stream:
        peeked = stream.peek(4)[:4]  # type: ignore[attr-defined]
        known = encoding or _marked_encoding(peeked)
        if known is None or codecs.lookup(known).name == "utf-8":
            yield stream
            return
        try:
            yield io.BufferedReader(_Recoded(stream, known), _CHUNK)
        except UnicodeDecodeError as error:
            raise InputError(
                f"the file is not {known} text ({error.reason})",
                file=file.name,
                field="encoding",
                value=encoding,
                remedy="Name the encoding that it was saved in, e.g. `encoding: cp1252`.",
            ) from None


@contextmanager
def open_text(file: DataFile, encoding: str | None = None) -> Iterator[IO[str]]:
    """Open a text file (a byte order mark is skipped), decompressed; see `open_utf8`."""
    with open_utf8(file, encoding) as stream:
        yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _marked_encoding(start: bytes) -> str | None:
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    if len(start) == 4 and start[1] == start[3] == 0 and start[0]:
        return "utf-16-le"
    if len(start) == 4 and start[0] == start[2] == 0 and start[1]:
        return "utf-16-be"
    return None


_STRANGERS = {
    b"version https://git-lfs": ("a pointer of Git LFS, not the file", "Run `git lfs pull`."),
    b"<!doctype html": ("a page of HTML", "Download the file itself, not its page."),
    b"<html": ("a page of HTML", "Download the file itself, not its page."),
    b"PK\x03\x04": ("a ZIP archive", "Let its name end with .zip."),
    b"\x1f\x8b": ("packed by gzip", "Let its name end with .gz."),
    b"\x28\xb5\x2f\xfd": ("packed by zstandard", "Let its name end with .zst."),
    b"BZh": ("packed by bzip2", "Let its name end with .bz2."),
    b"\xfd7zXZ": ("packed by xz", "Let its name end with .xz."),
    b"PAR1": ("a Parquet file", "Let its name end with .parquet."),
    b"ARROW1": ("an Arrow file", "Let its name end with .arrow."),
    b"SQLite format 3": ("a database of SQLite", "Write its table as CSV or JSONL."),
}
"""How files begin that are not what their name says -> what they are, and the remedy."""


def refuse_stranger(file: DataFile) -> None:
    """Raise InputError for a text or Parquet file that is something else by its first bytes."""
    if file.last_suffix in (*COMPRESSIONS, ".arrow", ".feather", ".ipc"):
        return
    with file.opened() as stream:
        start = stream.read(32).lstrip().lower()
    for mark, (what, remedy) in _STRANGERS.items():
        if start.startswith(mark.lower()) and not (mark == b"PAR1" and file.suffix == ".parquet"):
            raise InputError(f"this is {what}", file=file.name, remedy=remedy)


def is_link_text(file: DataFile) -> bool:
    """Whether a local file holds one path alone, as Git writes a link where it makes none."""
    if is_url(file.location) or file.n_bytes() > _LONGEST_PATH:
        return False
    with file.opened() as stream:
        text = stream.read()
    return text.startswith((b"/", b"./", b"../")) and text.split() == [text]


def refuse_empty(file: DataFile) -> None:
    """Raise InputError for a file of no bytes, or one that cannot be looked at."""
    if file.n_bytes() == 0 and not file.location.startswith("http"):
        remedy = "Check the step that wrote it, or leave it out."
        raise InputError("the file is empty", file=file.name, remedy=remedy)


def unreadable(name: str, error: OSError) -> InputError:
    """The error for a file that cannot be read where it is."""
    return InputError(
        f"cannot be read ({error.strerror or error})",
        file=name,
        remedy="Check that the file is there and that you may read it.",
    )


def plain_suffix(path: str | Path) -> str:
    """The suffix below a compression suffix, lower case: `.jsonl` for `a.JSONL.gz`."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(str(path)).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def plain_stem(path: str | Path) -> str:
    """The file's name without its format and compression: `a` for `a.jsonl.gz`."""
    stem = PurePosixPath(str(path)).name
    if PurePosixPath(stem).suffix.lower() in COMPRESSIONS:
        stem = PurePosixPath(stem).stem
    return PurePosixPath(stem).stem


def _decompressed(file: BinaryIO, suffix: str) -> BinaryIO:
    openers: dict[str, Callable[[Any], Any]] = {
        ".gz": lambda packed: gzip.GzipFile(fileobj=packed),
        ".bz2": bz2.BZ2File,
        ".xz": lzma.LZMAFile,
        ".zst": _ZstdStream,
    }
    raw: Any = openers[suffix](file) if suffix in openers else file
    return raw if hasattr(raw, "peek") and raw is file else io.BufferedReader(raw, _CHUNK)


class _Recoded(io.RawIOBase):
    """A stream of text in some encoding as UTF-8 bytes."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._stream, self._left, self._ended = stream, b"", False

    def readable(self) -> bool:
        """Yes: BufferedReader asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with UTF-8; 0 at the end."""
        while not self._left and not self._ended:
            data = self._stream.read(_CHUNK)
            self._ended = not data
            self._left = self._decoder.decode(data, final=self._ended).encode()
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


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

    def readinto(self, buffer: Any) -> int:
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
