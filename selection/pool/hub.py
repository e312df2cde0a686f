"""Hugging Face datasets as raw rows, streamed. The pool's only module that uses the network."""

import os
from collections.abc import Iterator
from typing import Any

from selection.errors import InputError
from selection.pool.rows import RawRow, jsonable
from selection.records import PoolSource


def iter_dataset(source: PoolSource) -> Iterator[RawRow]:
    """Stream the rows of a dataset on the hub; `file` is the dataset's name, rows count from 1.

    Images and audio are not decoded. Raises InputError when the dataset, its subset, split or
    revision is not there or cannot be reached.
    """
    from datasets import load_dataset

    try:
        data = load_dataset(
            source.path,
            name=source.subset,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )
        data = _one_split(data, source)
        for row, value in enumerate(data.decode(False), 1):
            values = {str(key): jsonable(item) for key, item in value.items()}
            yield RawRow(source.path, row, values)
    except (OSError, ValueError, RuntimeError) as error:  # what datasets and the hub raise
        raise explain(source, error) from error


def dataset_commit(source: PoolSource) -> str:
    """The commit that the dataset's revision names now, 40 hex digits.

    Raises InputError when the hub cannot be asked: without a commit, nobody could say later what
    was read.
    """
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(source.path, revision=source.revision).sha)
    except (OSError, ValueError, RuntimeError) as error:
        raise explain(source, error) from error


def explain(source: PoolSource, error: Exception) -> InputError:
    """Turn what the hub's libraries raise into one sentence with a remedy."""
    if isinstance(error, InputError):
        return error
    name, text = type(error).__name__, str(error).strip() or type(error).__name__
    lower = text.lower()
    field, value, problem = "path", source.path, text.splitlines()[0]
    if "gated" in name.lower() or "gated" in lower or "401" in text or "403" in text:
        problem = "the dataset is gated or private, and this machine may not read it"
        remedy = "Accept its terms on the hub, then log in with `hf auth login` or set HF_TOKEN."
    elif isinstance(error, ConnectionError) or "offline" in name.lower() or "connect" in lower:
        problem = "no such file or folder here, and the Hugging Face hub cannot be reached"
        remedy = _offline_remedy()
    elif "builderconfig" in lower or "config name" in lower:
        field, value, remedy = "subset", source.subset or "", "Set `subset` to one of those named."
    elif "split" in lower:
        field, value, remedy = "split", source.split or "", "Set `split` to one of those named."
    elif "revision" in name.lower() or ("revision" in lower and source.revision):
        field, value = "revision", source.revision or ""
        problem, remedy = "no such revision of the dataset", "Give a branch, tag or commit of it."
    elif "notfound" in name.lower() or "doesn't exist" in lower or "404" in text:
        problem = "no such file or folder here, and no such dataset on the Hugging Face hub"
        remedy = "Check the spelling; a dataset is named ORGANISATION/NAME, a path may begin ./"
    else:
        problem = f"the dataset cannot be read ({name}: {problem})"
        remedy = "Download it and give its files instead."
    return InputError(problem, file=source.path, field=field, value=value, remedy=remedy)


def _offline_remedy() -> str:
    switches = [key for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if os.environ.get(key)]
    if switches:
        return f"{' and '.join(switches)} is set: unset it, or give the path of a local copy."
    return "Check the path or the connection, or download the dataset and give its files."


def _one_split(data: Any, source: PoolSource) -> Any:  # noqa: ANN401 - datasets is untyped here
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
