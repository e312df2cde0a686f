"""Models and tokenizers by folder or by Hugging Face name: the files on this machine, or why not.

Nothing is set globally: HF_HUB_OFFLINE, HF_HOME and HF_TOKEN are obeyed as the hub client reads
them. Without network a name works if its files are in the cache.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selection.core.errors import InputError

TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "vocab.*", "merges.txt")
_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Files of a model or tokenizer on this machine.

    path:     folder with the files.
    revision: commit of a hub repository; None for a folder of the user's.
    """

    path: Path
    revision: str | None


def fetch_tokenizer(name: str, revision: str | None = None) -> Path:
    """Folder with the tokenizer of a local folder or a hub name; see `fetch`."""
    return fetch(name, revision, TOKENIZER_FILES).path


def fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Snapshot:
    """Find a folder, or download those files of a hub repository that match the patterns.

    Raises InputError if there is no such folder or repository, if access is refused (401, 403),
    or if the hub is out of reach and the files are not in the cache.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise InputError(
                "a revision belongs to a hub name, not to a folder",
                remedy="Leave the revision out.",
                file=folder,
                field="revision",
                value=revision,
            )
        return Snapshot(folder.resolve(), None)
    if folder.exists() or not _NAME.fullmatch(name):
        raise InputError(
            "this is neither a folder nor a Hugging Face name",
            remedy="Give a folder with config.json and weights, or a name like org/model.",
            value=name,
        )
    # Below the top are other formats of the same weights.
    return download(name, revision, patterns, ignore=["*/*", "consolidated*"])


def download(
    name: str, revision: str | None, patterns: Sequence[str], ignore: Sequence[str] = ()
) -> Snapshot:
    """Those files of a hub repository that match the patterns, from the cache where they are there.

    Raises InputError; see `fetch`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        path = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(ignore),
        )
    except GatedRepoError as error:  # A RepositoryNotFoundError too, so it comes first.
        raise InputError(
            f"{name} is gated and this account may not read it ({_status(error)})",
            remedy=f"Accept its terms at https://huggingface.co/{name}, then run `hf auth login`.",
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"Hugging Face has no repository {name}, or it is private ({_status(error)})",
            remedy="Check the spelling; for a private model run `hf auth login` or set HF_TOKEN. "
            "A local folder must exist under the path given.",
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{name} has no such revision",
            remedy=f"Choose a branch, tag or commit of https://huggingface.co/{name}/commits/main.",
            field="revision",
            value=revision,
        ) from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(name, revision) from error
    except HFValidationError as error:
        raise InputError(
            "this is not a Hugging Face name", remedy="Use org/model.", value=name
        ) from error
    except HfHubHTTPError as error:
        raise InputError(
            f"Hugging Face refused {name} ({_status(error)})",
            remedy="Check the token (`hf auth whoami`) and try again later.",
        ) from error
    return Snapshot(Path(path), Path(path).name)


def _status(error: Exception) -> str:
    """The HTTP status of a hub error, for people."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__


def _unreachable(name: str, revision: str | None) -> InputError:
    """The hub is out of reach and the cache does not have the files."""
    from huggingface_hub import constants

    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "Hugging Face is not reachable"
    cache = Path(constants.HF_HUB_CACHE)
    cached = sorted((cache / f"models--{name.replace('/', '--')}" / "snapshots").glob("*"))
    if revision is not None and cached:
        return InputError(
            f"this revision of {name} is not in this machine's cache, and {why}",
            remedy=f"Cached are: {', '.join(folder.name for folder in cached)}. Leave the revision"
            f" out, or run `hf download {name} --revision {revision}` where there is network.",
            field="revision",
            value=revision,
        )
    return InputError(
        f"{name} is not in this machine's cache, and {why}",
        remedy=f"Run `hf download {name}` where there is network and copy the cache "
        f"({cache}), or give the path of a folder with the files.",
    )
