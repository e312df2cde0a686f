"""A folder at an address that fsspec opens: the manifest comes last, and a mark stands before.

Object stores have no commit. So an earlier manifest is removed first, and `UNFINISHED.json` stands
beside the files until the new manifest is there.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from selection.core.errors import InputError
from selection.core.redaction import without_secrets
from storage.export.upload.destination import WholeExport, faults_explained
from storage.files.atomic import MANIFEST, json_bytes

MARK = "UNFINISHED.json"
_SECRET = re.compile("key|secret|token|passw|sas|credential|connection", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UrlFolder:
    """A folder at an address. begun: what is there already of this selection, in words."""

    url: str
    begun: str

    @property
    def address(self) -> str:
        """The address without secrets."""
        return without_secrets(self.url).rstrip("/")

    @property
    def words(self) -> str:
        """What it is, and what an upload would replace there."""
        return f"{self.address}/: {self.begun}"

    def upload(self, export: WholeExport) -> None:
        """Put all files there, the manifest last, and compare their sizes."""
        remedy = f"Repeat the command. The folder is marked as unfinished ({MARK}, no {MANIFEST})."
        with _opened(self.url, remedy) as (filesystem, target):
            filesystem.makedirs(target, exist_ok=True)
            mark = {"selection_id": export.facts.selection_id, "note": "an upload is not finished"}
            filesystem.pipe_file(f"{target}/{MARK}", json_bytes(mark))
            if filesystem.exists(f"{target}/{MANIFEST}"):
                filesystem.rm_file(f"{target}/{MANIFEST}")
            for name in export.sha256:  # the manifest is the last one
                path, there = export.folder / name, f"{target}/{name}"
                filesystem.makedirs(there.rpartition("/")[0], exist_ok=True)
                filesystem.put_file(str(path), there)
                if filesystem.size(there) != path.stat().st_size:
                    raise OSError(f"{name} did not arrive whole")
            filesystem.rm_file(f"{target}/{MARK}")


def look_at_url(url: str, export: WholeExport) -> UrlFolder:
    """The folder at an address, once nothing is in the way of an upload.

    Raises InputError where it cannot be read, or holds anything else than this selection.
    """
    with _opened(url, "Nothing was uploaded.") as (filesystem, target):
        names = _names(filesystem, target)
        owners = [name for name in (MANIFEST, MARK) if name in names]
        for name in owners:
            there = json.loads(filesystem.cat_file(f"{target}/{name}"))
            if there.get("selection_id") != export.facts.selection_id:
                owners = []
                break
        if names and not owners:
            raise InputError(
                "the folder holds other files, which an upload could overwrite",
                file=without_secrets(url),
                field="--to",
                remedy="Name a new or empty folder.",
            )
    begun = "an earlier upload of it is replaced" if MANIFEST in owners else "a new folder"
    return UrlFolder(url, "an upload of it was not finished" if MARK in owners else begun)


def _names(filesystem: Any, target: str) -> set[str]:
    """Names in a folder; none where it is not there."""
    if not filesystem.exists(target):
        return set()
    return {
        str(path).rstrip("/").rpartition("/")[2] for path in filesystem.ls(target, detail=False)
    }


@contextmanager
def _opened(url: str, remedy: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address and the path in it, faults explained."""
    from fsspec.core import url_to_fs

    advice = f"Check the address and its credentials. {remedy} fsspec names a missing package."
    if url.startswith("hf://"):
        raise InputError(
            "fsspec makes a commit for every file of the hub, so half an export could show",
            file=without_secrets(url),
            field="--to",
            remedy="Use `saelect push SELECTION organisation/name`.",
        )
    secrets: Sequence[str] = ()
    with faults_explained(url, "--to", advice):
        filesystem, target = url_to_fs(url)
        options = filesystem.storage_options.items()
        secrets = [str(value) for name, value in options if _SECRET.search(name)]
    with faults_explained(url, "--to", advice, secrets):
        yield filesystem, target.rstrip("/")
