"""The journal of a `forget`: what it is about, and what it has to do, written before it does it.

It holds ids, keys and hashes, no text. While the file is there, the work is not done; whoever finds
it with nobody at work carries on (`storage.audit.forget.finish`).
"""

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from storage.files.atomic import write_bytes
from storage.files.workspace import Workspace


class Journal(BaseModel):
    """One `forget`. The lists that are made before anything is blanked cannot be made again.

    keys:    of the samples' vectors, in hex.
    latents: `SAE:latent` of descriptions that quote one of the samples.
    bundles: (folder, selection_id, with_text) of bundles that hold one of them.
    trusted: manifests that were as recorded when it began.
    files:   file that is to be written -> SHA-256 of what it will hold; only where it was as
             recorded before, so that what was changed by hand is not recorded as ours.
    """

    model_config = ConfigDict(extra="forbid")

    example_ids: list[str]
    reason: str
    who: str
    at: datetime
    keys: list[str] = []
    latents: list[str] = []
    bundles: list[tuple[str, str, bool]] = []
    trusted: list[str] = []
    files: dict[str, str] = {}

    def save(self, workspace: Workspace) -> None:
        """Write it, whole or not at all."""
        write_bytes(workspace.forget_journal, self.model_dump_json(indent=1).encode())

    def announce(self, workspace: Workspace, path: Path, sha256: str) -> None:
        """Note what a file will hold, before it gets its name: nothing else is recorded later."""
        self.files[workspace.relative(path)] = sha256
        self.save(workspace)

    def trusts(self, workspace: Workspace, path: Path, sha256: str | None = None) -> bool:
        """Whether a file is as recorded, or as announced.

        sha256: as recorded; None for a manifest, whose hash the catalog has.
        """
        name, now = workspace.relative(path), file_sha256(path)
        as_recorded = name in self.trusted if sha256 is None else now == sha256
        return as_recorded or self.files.get(name) == now

    def key_bytes(self) -> set[bytes]:
        """The keys as shards have them."""
        return {bytes.fromhex(key) for key in self.keys}


def read_journal(workspace: Workspace) -> Journal | None:
    """The journal of a `forget` that has not ended; None where there is none.

    Raises InputError for one that was changed by hand.
    """
    path = workspace.forget_journal
    try:
        return Journal.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(
            f"not the journal of a `forget` ({error.errors()[0]['msg']})",
            file=path,
            remedy="It was changed by hand. Remove it and repeat `saelect forget`.",
        ) from None
