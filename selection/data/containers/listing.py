"""Which files a source has: folders, patterns, URLs, splits, partitions; and what is left out."""

import glob
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from selection.core.errors import InputError
from selection.core.redaction import without_secrets
from selection.data.containers.streams import (
    COMPRESSIONS,
    DataFile,
    archive_protocol,
    is_url,
    plain_stem,
    plain_suffix,
    url_to_filesystem,
)
from selection.records import PoolSource

LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
ARROW = (".arrow", ".feather", ".ipc")
SUFFIXES = (*LINES, ".json", *TABLES, ".parquet", *ARROW)
SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "eval": "validation", "evaluation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of splits in paths -> the split."""

_METADATA = {"dataset_info.json", "dataset_infos.json", "state.json", "manifest.json",
             "dataset_dict.json"}  # fmt: skip
_DATASET_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of a folder that is not read, and why, as a clause."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source in a fixed order, and what a folder holds beside them."""

    files: list[DataFile]
    skipped: list[Skipped]


def local_path(source: PoolSource) -> Path:
    """The path of a source, with `~` resolved."""
    return Path(source.path).expanduser()


def is_dataset_name(source: PoolSource) -> bool:
    """Whether the path can only be the name of a Hugging Face dataset: nothing local has it."""
    path = source.path
    known = plain_suffix(path) in SUFFIXES or glob.has_magic(path) or is_url(path)
    if known or archive_protocol(path) or local_path(source).exists():
        return False
    return _DATASET_NAME.fullmatch(path) is not None


def source_name(source: PoolSource) -> str:
    """The pool's name: as given, else the file's stem, the folder's name or the dataset's name."""
    if source.name:
        return source.name
    if is_dataset_name(source):
        return source.path.rstrip("/")
    path = local_path(source)
    return path.resolve().name if path.is_dir() else plain_stem(source.path)


def named_apart(sources: Sequence[PoolSource]) -> list[str]:
    """The names of several sources: equal ones get as much of their paths as tells them apart."""
    names = [source_name(source) for source in sources]
    paths = [PurePosixPath(source.path) for source in sources]
    for name in {name for name in names if names.count(name) > 1}:
        same = [i for i, other in enumerate(names) if other == name and not sources[i].name]
        n_different = len({paths[i] for i in same})
        deepest = max((len(paths[i].parts) for i in same), default=0)
        # By folders above the stem, then by folders above the whole file name.
        ways = [(depth, whole) for whole in (False, True) for depth in range(2, deepest + 1)]
        for depth, whole in ways:
            longer = [
                "/".join((*paths[i].parts[-depth:-1], paths[i].name if whole else name))
                for i in same
            ]
            if len(set(longer)) == n_different:
                for i, long in zip(same, longer, strict=True):
                    names[i] = long
                break
    return names


def has_many_files(source: PoolSource) -> bool:
    """Whether the path may be of several files: a folder, an archive, a pattern or an address."""
    path = source.path
    named = is_url(path) or archive_protocol(path) or glob.has_magic(path)
    return bool(named) or local_path(source).is_dir()


def find_files(source: PoolSource) -> list[DataFile]:
    """The files of a source that is no dataset of the hub; see `list_files`."""
    return list_files(source).files


def list_files(source: PoolSource) -> Listing:
    """The files of a source, by their path as text, and those of a folder that are left out.

    A folder or an archive is searched with its sub-folders. Left out, and named, are hidden and
    empty files, other formats, links that lead nowhere or to a folder, the metadata of saved
    datasets, and, if there are several splits, all but the wanted one: `split`, else train. What a
    pattern matches is sorted in the same way. Raises InputError when there is nothing to read, and
    for splits among which there is no train.
    """
    given = without_secrets(source.path)
    path = local_path(source)
    if is_url(source.path):
        return _list_url(source, given, source.path)
    if path.is_dir():
        return _list_folder(source, given.rstrip("/"), path)
    if path.exists():
        if archive_protocol(source.path):
            return _list_url(source, given, str(path))
        return Listing([DataFile(str(path), given)], [])
    if glob.has_magic(str(path)) and (matches := sorted(glob.glob(str(path), recursive=True))):
        return _list_pattern(source, str(path), matches)
    raise InputError(
        "no such file, folder or pattern",
        file=given,
        remedy="Check the path; a relative one starts in the current folder"
        f" ({Path.cwd()}). A Hugging Face dataset is named ORGANISATION/NAME.",
    )


def _list_folder(source: PoolSource, given: str, folder: Path) -> Listing:
    files, skipped = list[DataFile](), list[Skipped]()
    names = list[str]()
    for root, folders, entries in os.walk(folder):
        relative = Path(root).relative_to(folder)
        for name in [name for name in folders if (Path(root) / name).is_symlink()]:
            skipped.append(Skipped(f"{given}/{(relative / name).as_posix()}/", "linked folder"))
        for name in entries:
            path, shown = Path(root) / name, (relative / name).as_posix()
            names.append(name)
            if why := _why_not(path, shown):
                skipped.append(Skipped(f"{given}/{shown}", why))
            else:
                files.append(DataFile(str(path), f"{given}/{shown}", _partition(shown)))
    return _finished(source, f"{given}/", files, skipped, names)


def _list_pattern(source: PoolSource, pattern: str, matches: Sequence[str]) -> Listing:
    """Files that match, sorted out as those of the folder above the pattern."""
    root = _root_of(pattern)
    files, skipped = list[DataFile](), list[Skipped]()
    for match in matches:
        shown, name = match.removeprefix(root), without_secrets(match)
        if Path(match).is_dir():
            if not any(other.startswith(match.rstrip("/") + "/") for other in matches):
                skipped.append(Skipped(f"{name.rstrip('/')}/", "folder that the pattern matches"))
        elif "**" in pattern and _is_below_link(root, shown):
            skipped.append(Skipped(name, "in a linked folder"))
        elif why := _why_not(Path(match), shown):
            skipped.append(Skipped(name, why))
        else:
            files.append(DataFile(match, name, _partition(shown)))
    return _finished(source, root, files, skipped, [item.name for item in skipped])


def _is_below_link(root: str, shown: str) -> bool:
    """Whether a folder between the pattern's root and the file is a link, which may be a circle."""
    return any(Path(root, parent).is_symlink() for parent in PurePosixPath(shown).parents)


def _root_of(pattern: str) -> str:
    """What stands before the first folder or name with a sign of patterns."""
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.split("/"))
    return "".join(f"{part}/" for part in fixed)


def _list_url(source: PoolSource, given: str, url: str) -> Listing:
    """Files at an address or in an archive; a folder of it is read as a local one is."""
    archive = archive_protocol(url) if not glob.has_magic(url) else ""
    scheme, root = archive or url.split("://")[0], given.rstrip("/") + "/"
    try:
        filesystem, path = url_to_filesystem(f"{archive}://::{url}" if archive else url)
        if glob.has_magic(path) and not scheme.startswith("http"):
            entries = filesystem.glob(path, detail=True)
            root, path = _root_of(given), _root_of(path)
        elif scheme.startswith("http") or not (archive or filesystem.isdir(path)):
            return Listing([DataFile(url, given)], [])
        else:
            entries = filesystem.find(path, detail=True)
    except OSError as error:
        raise InputError(
            f"the address cannot be read ({error.strerror or error})",
            file=given,
            remedy="Check the address and the credentials that its package reads.",
        ) from None
    files, skipped = list[DataFile](), list[Skipped]()
    for entry in sorted(entries):
        shown = entry.removeprefix(path).lstrip("/")
        at = f"{scheme}://{entry.lstrip('/')}{f'::{url}' if archive else ''}"
        if why := _why_not_named(shown) or _why_not_at(entry, entries[entry]):
            skipped.append(Skipped(root + shown, why))
        else:
            files.append(DataFile(at, root + shown, _partition(shown)))
    return _finished(source, root, files, skipped, [PurePosixPath(e).name for e in entries])


def _why_not_at(path: str, info: Mapping[str, object]) -> str:
    """Why a file that is not local is not read, as a clause; "" for one that is."""
    if info.get("type") == "directory":
        return "folder that the pattern matches"
    if "::" in path:
        return "name with ::"
    return "empty" if info.get("size") == 0 else ""


def _finished(
    source: PoolSource, root: str, files: list[DataFile], skipped: list[Skipped], names: list[str]
) -> Listing:
    given = without_secrets(source.path)
    if not files:
        raise _nothing_in(given, sorted(names))
    files, others = _of_split(source, root, files)
    skipped += others
    return Listing(sorted(files, key=lambda f: f.name), sorted(skipped, key=lambda s: s.name))


def _why_not(path: Path, shown: str) -> str:
    """Why a file of a folder is not read, as a clause; "" for one that is."""
    if path.is_symlink() and not path.exists():
        return "link to nothing"
    if why := _why_not_named(shown):
        return why
    if not path.is_file():
        return "not a file"
    return "empty" if path.stat().st_size == 0 else ""


def _why_not_named(shown: str) -> str:
    name = PurePosixPath(shown).name
    if any(part.startswith(".") for part in PurePosixPath(shown).parts):
        return "hidden"
    is_cache = name.startswith(("cache-", "indices-")) and name.endswith(".arrow")
    if name in _METADATA or is_cache:
        return "metadata of a saved dataset"
    if plain_suffix(name) not in SUFFIXES:
        return f"format {PurePosixPath(name).suffix or 'not known by its name'}"
    return ""


def _partition(shown: str) -> tuple[tuple[str, str | None], ...]:
    """Columns named by folders such as `language=en`."""
    pairs = [part.split("=", 1) for part in PurePosixPath(shown).parts[:-1] if "=" in part]
    return tuple((key, None if value == _NO_PARTITION else unquote(value)) for key, value in pairs)


def split_of(shown: str) -> str | None:
    """The split that a path inside a folder names, as the hub reads it; None for no split."""
    for part in reversed(PurePosixPath(shown).parts):
        for word in re.split(r"[-_. ]", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return None


def _of_split(
    source: PoolSource, root: str, files: list[DataFile]
) -> tuple[list[DataFile], list[Skipped]]:
    """The files of the wanted split, and the others as left out.

    Files whose path names no split belong to train.
    """
    given = without_secrets(source.path)
    splits = [split_of(file.name.removeprefix(root)) for file in files]
    wanted = SPLITS.get(source.split, source.split) if source.split else None
    named = {split or "train" for split in splits}
    if wanted is None and len(named) == 1:
        return files, []
    if wanted is None and "train" not in named:
        raise InputError(
            "there are several splits",
            file=given,
            field="split",
            value=sorted(named),
            remedy="Set `split` to one of them, or name the files.",
        )
    wanted = wanted or "train"
    if wanted not in named:
        raise InputError(
            "there is no such split",
            file=given,
            field="split",
            value=source.split,
            remedy=f"Splits: {', '.join(sorted(named))}.",
        )
    pairs = list(zip(files, splits, strict=True))
    others = [
        Skipped(f.name, f"split {s}" if s else "no split in its name")
        for f, s in pairs
        if (s or "train") != wanted
    ]
    return [file for file, split in pairs if (split or "train") == wanted], others


def _nothing_in(folder: str, names: list[str]) -> InputError:
    return InputError(
        "it holds no file that can be read as a pool",
        file=folder,
        value=names[:5] if names else None,
        remedy=f"Known formats: {', '.join(SUFFIXES)}, also with {', '.join(COMPRESSIONS)}.",
    )
