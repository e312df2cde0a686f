"""saelect from Python: read samples, represent, rank, select, explain, write training files.

    from selection.api import load_model, rank, read_exemplars, read_samples, represent, select

    samples = read_samples("pool.jsonl")
    exemplars = read_exemplars("exemplars.jsonl", target="sql")
    vectors = represent(samples, load_model("demo"), folder="vectors")
    picks = select(rank(vectors, exemplars["sql"]), fraction=0.05)
    print(picks.table, picks.explain(0))
    picks.write("train.jsonl")

The same input and settings give the same picks and scores as `saelect run`, to the bit. Nothing is
kept but what `folder` and `write` name; the audit catalog is the command line's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selection.data.exemplars import read_exemplar_rows
from selection.data.exemplars import read_exemplars as read_exemplar_files
from selection.data.read import ReadBatch, read_pool, read_rows
from selection.data.samples import Samples, gather_samples, samples_in_order
from selection.interactive.picked import PickRules, Selected, pick_samples
from selection.interactive.ranked import Ranked, RankingRules, rank_samples
from selection.interactive.reader import ModelName, Reader, ReaderSettings, open_reader
from selection.interactive.training import train_in_memory
from selection.interactive.vectors import SpaceKind, Vectors, make_vectors
from selection.picking.rules.diversity import Diversity
from selection.picking.rules.from_settings import NearDuplicates
from selection.picking.rules.quotas import Bounds, Quota
from selection.records import Budget, PoolSource
from selection.sae.training.settings import TrainSettings

__all__ = [
    "Bounds",
    "Diversity",
    "NearDuplicates",
    "Quota",
    "Ranked",
    "Reader",
    "Samples",
    "Selected",
    "Vectors",
    "load_model",
    "rank",
    "read_exemplars",
    "read_samples",
    "represent",
    "select",
    "train_sae",
]

Data = str | Path | Sequence[Any] | Any
"""Path, folder, glob or dataset name; or rows in memory: see `read_samples`."""


def read_samples(
    data: Data,
    *,
    shape: str = "auto",
    columns: Mapping[str, str] | None = None,
    **source: Any,
) -> Samples:
    """Every different conversation of a pool once, in order of example id.

    data:    a file, folder, glob or Hugging Face dataset name, or several in a list; or a list of
             dicts, a polars, pandas or Arrow table, a `datasets.Dataset`.
    shape:   of a row; "auto" looks at the first rows. columns: role -> column name.
    source:  further fields of `selection.records.PoolSource`: name, split, subset, broken_rows, ...
    Rows that cannot be used are in `.drops` with their reasons. Raises InputError.
    """
    return gather_samples(_batches(data, shape, columns, source))


def read_exemplars(
    data: Data,
    *,
    targets: Sequence[str] | None = None,
    target: str = "target",
    shape: str = "auto",
    columns: Mapping[str, str] | None = None,
    **source: Any,
) -> dict[str, Samples]:
    """Target task -> its exemplars, in file order.

    data:    as `read_samples` takes it; also a targets file (one line per target with `exemplars`).
    targets: names to keep; None keeps all. target: what rows without a target of their own are for.
    Raises InputError for rows that cannot be used: none of a few exemplars is dropped unsaid.
    """
    if isinstance(data, str | Path):
        given = _source(data, shape, columns, source)
        table = read_exemplar_files(given, targets, target)
    else:
        given = _source("memory", shape, columns, source)
        table = read_exemplar_rows(data, given, targets, target)
    names = table["target"].to_pylist()
    return {
        name: samples_in_order(table.filter([other == name for other in names]))
        for name in dict.fromkeys(names)
    }


def load_model(
    name: ModelName = "demo",
    sae: str | Path = "demo",
    *,
    hookpoint: str | None = None,
    trust_model: bool = False,
    **settings: Any,
) -> Reader:
    """A language model with its SAE; the weights are loaded when they are first needed.

    name:      folder or Hugging Face name of the model, or "demo" for the packaged one; or a dict
               as the config's `model`: {"name": ..., "revision": ..., "adapter": ...,
               "gguf_file": ..., "trust_remote_code": ...}.
    sae:       folder, file or Hugging Face name of an SAE in a known format, or "demo".
    hookpoint: where the model is read, e.g. "resid@12" or "resid@0.66"; None: where the SAE says.
    trust_model: use the SAE though it names another model; width and blocks must fit all the same.
    settings:  fields of `ReaderSettings`: max_length, counted, token_aggregate, device, dtype, ...
    Raises InputError for an SAE that does not fit the model.
    """
    return open_reader(name, str(sae), hookpoint, ReaderSettings(**settings), trust_model)


def represent(
    samples: Samples,
    reader: Reader,
    *,
    spaces: Sequence[SpaceKind] = ("sae", "tokens"),
    folder: str | Path | None = None,
    progress: bool = True,
) -> Vectors:
    """Vectors of the samples in every space, by one forward pass over what is not there yet.

    spaces: "sae", and beside it "tokens" or "words" (counts).
    folder: keeps the SAE's vectors; the next call computes only what is new. None: memory alone.
    progress: show a bar, in a terminal or a notebook.
    """
    if "sae" not in spaces:
        raise ValueError("`spaces` needs 'sae', and may have 'tokens' and 'words' beside it")
    kept = None if folder is None else Path(folder).expanduser()
    return make_vectors(samples, reader, spaces, kept, progress=progress)


def rank(
    vectors: Vectors,
    exemplars: Samples,
    *,
    target: str = "target",
    **rules: Any,
) -> Ranked:
    """The samples in order of their exact similarity to the exemplars of one target task.

    rules: fields of `RankingRules`: where, exclude, weights, normalize, exemplar_reduction, ...
    Raises InputError for an exemplar without content tokens, and where no sample is left.
    """
    against = make_vectors(
        exemplars, vectors.reader, vectors.spaces, None, known=vectors, progress=False
    )
    return rank_samples(target, vectors, against, RankingRules(**rules))


def select(
    ranked: Ranked,
    *,
    examples: int | None = None,
    fraction: float | None = None,
    tokens: int | None = None,
    **rules: Any,
) -> Selected:
    """The best samples that a budget and the rules allow.

    examples, fraction, tokens: the budget, exactly one. A fraction is of eligible samples, floored;
    tokens are the longest prefix of the ranking that fits.
    rules: fields of `PickRules`: include, min_score, quotas, near_duplicates, diversity;
        replay_share or replay_tokens, drawn by seed.
    Raises InputError for a budget or a rule that cannot be met.
    """
    given = [unit for unit in (examples, fraction, tokens) if unit is not None]
    if len(given) != 1 or given[0] <= 0:
        raise ValueError("give exactly one of `examples`, `fraction`, `tokens`, above 0")
    return pick_samples(ranked, Budget(examples, fraction, tokens), PickRules(**rules))


def train_sae(
    samples: Samples,
    name: ModelName,
    folder: str | Path,
    *,
    hookpoint: str = "resid@0.66",
    num_latents: int = 4096,
    k: int = 32,
    tokens: int = 2_000_000,
    batch_tokens: int = 4096,
    max_length: int = 2048,
    progress: bool = True,
    **settings: Any,
) -> Path:
    """Train an SAE on a model's activations over the samples; returns its folder, for `load_model`.

    name:     of the model, as `load_model` takes it.
    tokens:   to train on, repeats allowed. batch_tokens: of one step.
    settings: further fields of `TrainSettings`: learning_rate, architecture, widths, seed, ...
    A stopped training resumes from its checkpoint in the folder.
    """
    return train_in_memory(
        samples,
        name,
        Path(folder).expanduser(),
        hookpoint,
        max_length,
        TrainSettings(
            num_latents=num_latents, k=k, tokens=tokens, batch_tokens=batch_tokens, **settings
        ),
        progress,
    )


def _batches(
    data: Data, shape: str, columns: Mapping[str, str] | None, more: Mapping[str, Any]
) -> Iterable[ReadBatch]:
    if isinstance(data, str | Path):
        return read_pool(_source(data, shape, columns, more))
    if isinstance(data, list | tuple) and data and isinstance(data[0], str | Path):
        return (batch for each in data for batch in read_pool(_source(each, shape, columns, more)))
    return read_rows(data, _source("memory", shape, columns, more))


def _source(
    path: str | Path, shape: str, columns: Mapping[str, str] | None, more: Mapping[str, Any]
) -> PoolSource:
    known = PoolSource(str(path), shape=shape, columns=dict(columns or {}))
    return replace(known, **more)
