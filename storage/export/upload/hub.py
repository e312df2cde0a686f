"""A dataset of the Hugging Face hub: the files of an export appear in it in one commit, or not.

Everything goes through `huggingface_hub`, which finds the token as its user set it up. The token is
never a value of saelect's: it is only read here, to take it out of what an error says.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selection.core.errors import InputError
from storage.export.cards import CARD, HERE, LOAD
from storage.export.upload.destination import WholeExport, faults_explained
from storage.files.atomic import MANIFEST

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_DATASET = "dataset"
_OF_THE_HUB = {".gitattributes", CARD}  # a new dataset may have them


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset of the hub.

    head:  commit that it is at; None where it has still to be made. stale: files of an earlier
    upload that this one lacks.
    """

    name: str
    user: str
    is_private: bool
    head: str | None
    stale: Sequence[str]

    @property
    def address(self) -> str:
        """As fsspec opens it."""
        return f"hf://datasets/{self.name}"

    @property
    def words(self) -> str:
        """What it is, and what an upload would replace there."""
        who = f"the dataset {self.name} of the hub, as {self.user}"
        seen = "private" if self.is_private else "PUBLIC"
        if self.head is None:
            return f"{who}: new and {seen}"
        removed = f"; no longer part of it: {', '.join(self.stale)}" if self.stale else ""
        return f"{who}: {seen}, one commit on top of {self.head[:8]}{removed}"

    def upload(self, export: WholeExport) -> str:
        """Make the dataset where it is new, and commit all files at once; returns the commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api = HfApi()
        remedy = "Repeat the command. Nothing of this upload shows: files appear in one commit."
        with _explained(self.name, remedy):
            if self.head is None:
                api.create_repo(self.name, repo_type=_DATASET, private=self.is_private)
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(name, self._content(export, name)) for name in export.sha256
            ]
            operations += [CommitOperationDelete(name) for name in self.stale]
            done = api.create_commit(
                self.name,
                operations,
                commit_message=f"Selection {export.facts.name} ({export.facts.selection_id})",
                repo_type=_DATASET,
                parent_commit=self.head,
            )
        return str(done.oid)

    def _content(self, export: WholeExport, name: str) -> str | bytes:
        """A file's path; the card's text names the dataset where the file names its folder."""
        path = export.folder / name
        if name != CARD:
            return str(path)
        text = path.read_text(encoding="utf-8")
        here, there = LOAD.format(export.facts.name) + HERE, LOAD.format(self.name)
        return text.replace(here, there).encode()


def look_at_hub(name: str, export: WholeExport, *, public: bool) -> HubDataset:
    """The dataset of this name, made or not, once nothing is in the way of an upload.

    Raises InputError without a token, for a public dataset that is not said to be one, and for one
    with files that no saelect put there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    if name.count("/") != 1 or ":" in name:
        raise InputError(
            "not the name of a dataset",
            field="dataset",
            value=name,
            remedy="Write organisation/name, or give an address with --to URL.",
        )
    api = HfApi()
    with _explained(name, "Check the name and the token (`hf auth whoami`); nothing was uploaded."):
        user = str(api.whoami()["name"])
        try:
            info = api.dataset_info(name)
        except RepositoryNotFoundError:
            return HubDataset(name, user, not public, None, ())
        there = {file.rfilename for file in info.siblings or ()}
        if not info.private and not public:
            raise InputError(
                "the dataset is public",
                field="dataset",
                value=name,
                remedy="Name another one, or say --public.",
            )
        listed = _listed(api, name, info.sha) if MANIFEST in there else None
        if listed is None and there - _OF_THE_HUB:
            raise InputError(
                "the dataset holds files that saelect did not put there",
                field="dataset",
                value=name,
                remedy="Name a new one.",
            )
    ours = {file for file in there if {file, file.split("/")[0]} & set(listed or ())}
    stale = sorted(ours - set(export.sha256))
    return HubDataset(name, user, bool(info.private), info.sha, stale)


def _listed(api: "HfApi", name: str, commit: str | None) -> list[str] | None:
    """Files that the manifest in the dataset lists; None where it is not saelect's."""
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(
            name, MANIFEST, repo_type=_DATASET, revision=commit, local_dir=folder
        )
        try:
            manifest = json.loads(Path(path).read_bytes())
            return [str(file["path"]) for file in manifest["files"]]
        except (ValueError, TypeError, KeyError):
            return None


@contextmanager
def _explained(name: str, remedy: str) -> Iterator[None]:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError(
            "there is no token for the hub",
            field="dataset",
            value=name,
            remedy="Run `hf auth login`, or set HF_TOKEN.",
        )
    with faults_explained(f"dataset {name}", "dataset", remedy, [token]):
        yield
