"""Hugging Face datasets as raw rows, streamed. The pool's only module that uses the network."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selection.core.errors import InputError
from selection.data.containers.rows import RawRow, jsonable
from selection.records import PoolSource

_COMMIT = re.compile(r"[0-9a-f]{40}")


def iter_dataset(source: PoolSource) -> Iterator[RawRow]:
    """Stream the rows of a dataset on the hub; `file` is the dataset's name, rows count from 1.

    Images and audio are not decoded. Raises InputError when the dataset, its subset, split or
    revision is not there or cannot be reached.
    """
    commit = dataset_commit(source)  # fails at once where streaming would try for half a minute
    from datasets import load_dataset

    with _explained(source):
        data = load_dataset(
            source.path,
            name=source.subset,
            split=source.split,
            revision=commit,
            streaming=True,
        )
        data = _one_split(data, source)
        for row, value in enumerate(data.decode(False), 1):
            values = {str(key): jsonable(item) for key, item in value.items()}
            yield RawRow(source.path, row, values)


def dataset_commit(source: PoolSource) -> str:
    """The commit that the dataset's revision names now, 40 hex digits.

    Raises InputError when the hub cannot be asked: without a commit, nobody could say later what
    was read. A revision that is a commit is taken as it is.
    """
    if source.revision and _COMMIT.fullmatch(source.revision):
        return source.revision
    from huggingface_hub import HfApi

    with _explained(source):
        return str(HfApi().dataset_info(source.path, revision=source.revision).sha)


def explain(source: PoolSource, error: Exception) -> InputError:
    """Turn what the hub's libraries raise into one sentence with a remedy."""
    name, text = type(error).__name__, str(error).strip() or type(error).__name__
    lower, first = text.lower(), text.splitlines()[0]
    field, value = "path", source.path
    if name == "RepositoryNotFoundError" or ("NotFound" in name and "doesn't exist" in lower):
        problem = "no such file or folder here, and no such dataset that this machine may see"
        remedy = "Check the spelling (ORGANISATION/NAME); a private one needs `hf auth login`."
    elif "Gated" in name or "gated" in lower or re.search(r"\b40[13]\b", text):
        problem = "the dataset is gated or private, and this machine may not read it"
        remedy = "Accept its terms on the hub, then log in with `hf auth login` or set HF_TOKEN."
    elif isinstance(error, ConnectionError) or re.search("connect|offline|timeout", name, re.I):
        problem = "no such file or folder here, and the Hugging Face hub cannot be reached"
        remedy = _offline_remedy()
    elif "Revision" in name:
        field, value, problem = "revision", source.revision or "", "no such revision"
        remedy = "Give a branch, tag or commit of the dataset."
    elif "builderconfig" in lower or "config name" in lower:
        field, value, problem = "subset", source.subset or "", first
        remedy = "Set `subset` to one of those named."
    elif "split" in lower:
        field, value, problem = "split", source.split or "", first
        remedy = "Set `split` to one of those named."
    else:
        problem = f"the dataset cannot be read ({name}: {first})"
        remedy = "Download it and give its files instead."
    return InputError(problem, file=source.path, field=field, value=value, remedy=remedy)


@contextmanager
def _explained(source: PoolSource) -> Iterator[None]:
    """Turn the errors of datasets, the hub and its network library into InputError."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        raise explain(source, error) from error


def _offline_remedy() -> str:
    switches = [key for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if os.environ.get(key)]
    if switches:
        return f"{' and '.join(switches)} is set: unset it, or give the path of a local copy."
    return "Check the path or the connection, or download the dataset and give its files."


def _one_split(data: Any, source: PoolSource) -> Any:
    """The only split of what was loaded; several need the user's choice."""
    if not isinstance(data, dict):
        return data
    if len(data) == 1:
        return next(iter(data.values()))
    raise InputError(
        "the dataset has several splits",
        file=source.path,
        field="split",
        value=sorted(data),
        remedy="Set `split` to one of them, or list the dataset once for each.",
    )
