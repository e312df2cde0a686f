"""The spaces of a run: the pool's vectors in each, what their columns weigh, and the exemplars.

The first space is the run's own: `model`, `sae`, `representation.token_aggregate`. Others are the
same SAE under another aggregate, another SAE, or a lexical space; all share the pool's renderings,
so a sample has the same vector number in each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig, VectorJob
from flows.config.ranking import SpaceConfig
from flows.orchestration.progress import stage
from flows.stages.represent.exemplars import embed_targets
from flows.stages.represent.representer import Representer, another_representer
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.records import Exemplars, Rendered, SparseRows
from selection.rendering.renderer import render_key
from selection.representation.lexical import VERSION, lexical_report, lexical_rows, lexical_terms
from selection.similarity.ranking_input import RankingInput, ranking_input
from selection.similarity.sources import PoolSpaces, VectorMask, VectorNumbers
from selection.similarity.spaces import SpaceRule, join_for_targets
from selection.similarity.weights import document_frequencies
from storage.files.leases import run_once
from storage.pools.renderings import RenderedPool, first_of_each
from storage.pools.shards import open_shards, write_shard
from storage.pools.vectors import PoolVectors

Targets = Mapping[str, tuple[pa.Table, Exemplars]]


@dataclass(frozen=True)
class Source:
    """Where the vectors of one space come from.

    name:        what explanations call the space.
    settings:    of the config.
    representer: of an SAE; for a lexical space that of the run, whose tokenizer and folders it has.
    """

    name: str
    settings: SpaceConfig
    representer: Representer

    @cached_property
    def is_lexical(self) -> bool:
        """Whether counting tokens or words is enough."""
        return self.settings.kind != "sae"

    @cached_property
    def shards_id(self) -> str:
        """Name of the folder of shards."""
        if not self.is_lexical:
            return self.representer.representation_id
        tokenizer = self.representer.model_input.renderer.settings["tokenizer"]
        kind = self.settings.kind
        return content_id({"kind": kind, "tokenizer": tokenizer, "version": VERSION})

    @property
    def folder(self) -> Path:
        """The folder of shards."""
        return self.representer.workspace.shards / self.shards_id

    def vectors(self, pool_id: str) -> PoolVectors:
        """The pool's vectors, which were made before."""
        rendered = self.representer.rendered(pool_id)
        return PoolVectors(open_shards(self.folder), rendered.keys(), rendered.usable())

    def counts(self, samples: Sequence[Rendered]) -> SparseRows:
        """Lexical vectors of some samples."""
        assert self.settings.kind != "sae"
        return lexical_rows(self.settings.kind, samples, self.representer.model_input.renderer)

    def terms(self, samples: Sequence[Rendered]) -> Mapping[int, str]:
        """Column -> term, for the columns of some samples; empty for an SAE."""
        if self.settings.kind == "sae":
            return {}
        return lexical_terms(self.settings.kind, samples, self.representer.model_input.renderer)


def open_sources(config: VectorJob, representer: Representer) -> tuple[Source, ...]:
    """The config's spaces, in its order. Raises InputError where two of them are the same."""
    sources = []
    for settings in config.representation.spaces:
        if settings.kind != "sae":
            sources.append(Source(settings.kind, settings, representer))
        elif settings.is_own:
            sources.append(Source(str(representer.model_input.hookpoint), settings, representer))
        else:
            sources.append(_other_sae(config, settings, representer))
    names = [source.name for source in sources]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(
            "two spaces are the same",
            field="representation.spaces",
            value=twice[0],
            remedy="Give them another hookpoint, SAE or token_aggregate, or drop one.",
        )
    return tuple(sources)


def _other_sae(config: VectorJob, settings: SpaceConfig, representer: Representer) -> Source:
    """Another aggregate of the run's SAE, or another SAE of the run's model."""
    aggregate = settings.token_aggregate or config.representation.token_aggregate
    update = {"token_aggregate": aggregate}
    changed = config.model_copy(
        update={"representation": config.representation.model_copy(update=update)}
    )
    if settings.sae is None:
        other = another_representer(representer, changed, representer.sae.path)
        return Source(f"{other.model_input.hookpoint}/{aggregate}", settings, other)
    changed = changed.model_copy(
        update={
            "model": config.model.model_copy(update={"hookpoint": settings.hookpoint or ""}),
            "sae": config.sae.model_copy(update={"path": settings.sae, "train": None}),
        }
    )
    other = another_representer(representer, changed, settings.sae)
    sae = other.sae.info.sae_id[:6]
    return Source(f"{other.model_input.hookpoint}:{sae}/{aggregate}", settings, other)


def representers_of(config: VectorJob, representer: Representer) -> list[Representer]:
    """Every SAE reading of the run, its own first; they share one model."""
    sources = open_sources(config, representer)
    others = [s.representer for s in sources if not s.is_lexical and not s.settings.is_own]
    return [representer, *others]


def count_terms(config: VectorJob, representer: Representer, rendered: RenderedPool) -> None:
    """Vectors of the lexical spaces, where they are missing."""
    for source in open_sources(config, representer):
        if source.is_lexical:
            _count_pool(source, rendered)


def _count_pool(source: Source, rendered: RenderedPool) -> None:
    folder, size = source.folder, source.representer.config.compute.unit_examples

    def waiting() -> list[VectorNumbers]:
        rows = open_shards(folder).rows_missing(rendered.keys(), rendered.first_rows())
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def count() -> None:
        units, keys = waiting(), rendered.keys()
        with stage(source.name, sum(map(len, units)), "examples") as handle:
            for unit in units:
                _write_counts(source, keys[unit], rendered.samples(unit))
                handle.advance(len(unit))
            handle.detail = f"{sum(map(len, units)):,} examples counted"

    run_once(folder / ".leases", "count", lambda: not waiting(), count)


def count_exemplars(config: SelectConfig, representer: Representer) -> None:
    """Vectors of the exemplars in the lexical spaces, where they are missing.

    A run counts them anew; they are kept so that its scores can be made again from what is kept.
    """
    session = representer.session
    samples = [each for table in session.targets.values() for each in session.samples(table)]
    keys = np.stack([np.frombuffer(render_key(sample), np.uint8) for sample in samples])
    usable = np.array([sample.content_mask.any() for sample in samples])
    for source in open_sources(config, representer):
        if source.is_lexical:
            missing = open_shards(source.folder).rows_missing(keys, first_of_each(keys, usable))
            if len(missing):
                _write_counts(source, keys[missing], [samples[row] for row in missing])


def _write_counts(source: Source, keys: NDArray[np.uint8], samples: Sequence[Rendered]) -> None:
    counted = source.counts(samples)
    unit_id = content_id([source.name, keys.tobytes().hex()], n_hex=24)
    write_shard(source.folder, unit_id, keys, counted, lexical_report(counted))


@dataclass(frozen=True)
class SpaceVectors(PoolSpaces):
    """The vectors of one pool in every space of a run, and where they come from."""

    parts: tuple[PoolVectors, ...]
    pool_id: str
    sources: tuple[Source, ...]

    @property
    def own(self) -> int:
        """Which of the spaces is that of the run's own model and SAE."""
        return next(i for i, source in enumerate(self.sources) if source.settings.is_own)


def open_spaces(config: SelectConfig, representer: Representer, pool_id: str) -> SpaceVectors:
    """The vectors of a pool whose spaces were all embedded before."""
    sources = open_sources(config, representer)
    names = tuple(source.name for source in sources)
    parts = tuple(source.vectors(pool_id) for source in sources)
    return SpaceVectors(names, parts, pool_id, sources)


Terms = Mapping[str, tuple[Mapping[int, str], ...]]
"""Target -> for every space, column -> term of its exemplars; empty for an SAE."""


def ranking_input_of(
    config: SelectConfig, vectors: SpaceVectors, targets: Targets, *, verify: bool = False
) -> tuple[RankingInput, Terms, VectorMask]:
    """First pass over the vectors, the joined exemplars, and (n_vectors,) which are not empty.

    verify: hash every shard on the way; raises InputError naming a file that was altered.
    """
    n, times = vectors.parts[0].n_vectors, vectors.parts[0].multiplicity()
    with stage("document frequencies", n * len(vectors.parts), "vectors") as handle:
        counts, has_column = document_frequencies(vectors, verify=verify, advance=handle.advance)
        used = " + ".join(f"{int((each.frequency > 0).sum()):,}" for each in counts)
        handle.detail = f"{used} columns in {int(times[has_column].sum()):,} examples"
    ranking = config.ranking
    rules = [
        SpaceRule(source.name, source.settings.weights or ranking.weights, source.settings.weight)
        for source in vectors.sources
    ]
    spaces, join = join_for_targets(
        rules,
        counts,
        normalize=ranking.normalize,
        max_document_frequency=ranking.max_document_frequency,
    )
    parts, terms = _exemplars_in_spaces(config, vectors, targets)
    ids = {name: exemplars.ids for name, (_, exemplars) in targets.items()}
    given = ranking_input(vectors, spaces, counts, ids, parts, vectors.own, join)
    return given, terms, has_column


def _exemplars_in_spaces(
    config: SelectConfig, vectors: SpaceVectors, targets: Targets
) -> tuple[dict[str, list[SparseRows]], Terms]:
    """Target -> its exemplars' vectors in every space, and the terms of their columns."""
    parts: dict[str, list[SparseRows]] = {name: [] for name in targets}
    terms: dict[str, list[Mapping[int, str]]] = {name: [] for name in targets}
    tables = {name: table for name, (table, _) in targets.items()}
    session = vectors.sources[0].representer.session
    samples = {name: session.samples(table) for name, table in tables.items()}
    for source in vectors.sources:
        embedded = targets
        if not source.is_lexical and not source.settings.is_own:
            embedded = embed_targets(source.representer, config, tables)
        for name, (_, exemplars) in embedded.items():
            lexical = source.is_lexical
            parts[name].append(source.counts(samples[name]) if lexical else exemplars.rows)
            terms[name].append(source.terms(samples[name]))
    return parts, {name: tuple(each) for name, each in terms.items()}
