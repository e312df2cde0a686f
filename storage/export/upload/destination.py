"""What is uploaded, where to, and what went wrong, in the terms that both kinds of places share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selection.core.errors import InputError
from selection.core.redaction import HIDDEN, without_secrets
from storage.export.facts import SelectionFacts

SHORTEST_SECRET = 6  # a shorter one would hide ordinary words


@dataclass(frozen=True, slots=True)
class WholeExport:
    """An export as it lies in the workspace, each file with the hash that the catalog has for it.

    files:  entries of its manifest. sha256: file -> hash; card and manifest are the last ones.
    """

    facts: SelectionFacts
    folder: Path
    files: Sequence[Mapping[str, object]]
    sha256: Mapping[str, str]

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum((self.folder / name).stat().st_size for name in self.sha256)


class Destination(Protocol):
    """Somewhere that an export can be put; it was looked at, and nothing there is in the way."""

    @property
    def address(self) -> str:
        """Where it is, without secrets; the address of a file adds `/` and its path."""

    @property
    def words(self) -> str:
        """What it is, and what an upload would replace there."""

    def upload(self, export: WholeExport) -> str | None:
        """Put all files there; returns the commit of a hub. Raises InputError."""


@contextmanager
def faults_explained(
    address: str, field: str, remedy: str, secrets: Sequence[str] = ()
) -> Iterator[None]:
    """Raise InputError for whatever a client or file system raises, without secrets in its text."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - clients and file systems have their own errors
        causes = [error, *([error.__cause__] if error.__cause__ else [])]
        text = ", from ".join(f"{type(each).__name__}: {each}" for each in causes)
        text = " ".join(text.split()).rstrip(".")
        for secret in secrets:
            text = text.replace(secret, HIDDEN) if len(secret) >= SHORTEST_SECRET else text
        raise InputError(
            without_secrets(text), file=without_secrets(address), field=field, remedy=remedy
        ) from None
