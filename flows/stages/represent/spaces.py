"""The spaces of a run: the pool's vectors in each, what their columns weigh, and the exemplars.

The first space is the run's own: `model`, `sae`, `representation.token_aggregate`. Others are the
same SAE under another aggregate, another SAE, or a lexical space; all share the pool's renderings,
so a sample has the same vector number in each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig, VectorJob
from flows.config.ranking import SpaceConfig
from flows.orchestration.progress import stage
from flows.stages.prepare.render import render_rows
from flows.stages.represent.representer import (
    Representer,
    embed_targets,
    open_representer,
    units_of,
)
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.core.sparse import document_frequency
from selection.records import Exemplars, Rendered, SparseRows
from selection.representation.lexical import VERSION, column_words, token_rows, word_rows
from selection.representation.represent import UnitReport
from selection.similarity.spaces import Joint, Space, average_length, column_masses
from selection.similarity.weights import latent_weights
from storage.files.leases import do_once
from storage.pools.renderings import RenderedPool
from storage.pools.shards import open_shards, write_shard
from storage.pools.vectors import PoolVectors

Targets = Mapping[str, tuple[pa.Table, Exemplars]]


class SpaceCounts(NamedTuple):
    """What a space's columns are in the pool.

    frequency: (n_columns,) int64 examples that have each column. n: examples with any.
    masses:    (n_columns,) int64 sum of each column's values; empty unless lengths are asked for.
    """

    frequency: NDArray[np.int64]
    n: int
    masses: NDArray[np.int64]


Counts = Sequence[SpaceCounts]


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

    def vectors(self, pool_id: str) -> PoolVectors:
        """The pool's vectors, which were made before."""
        rendered = self.representer.rendered(pool_id)
        shards = open_shards(self.representer.workspace.shards / self.shards_id)
        return PoolVectors(shards, rendered.keys(), rendered.usable())

    def counts(self, samples: Sequence[Rendered]) -> SparseRows:
        """Lexical vectors of some samples."""
        renderer = self.representer.model_input.renderer
        if self.settings.kind == "tokens":
            return token_rows(samples, renderer.n_token_ids)
        return word_rows(renderer.counted_text(sample) for sample in samples)

    def terms(self, samples: Sequence[Rendered]) -> Mapping[int, str]:
        """Column -> term, for the columns of some samples; empty for an SAE."""
        renderer = self.representer.model_input.renderer
        if self.settings.kind == "tokens":
            ids = np.unique(np.concatenate([s.tokens[s.content_mask] for s in samples]))
            return {int(token): renderer.token_text(int(token)) for token in ids}
        if self.settings.kind == "words":
            return column_words(renderer.counted_text(sample) for sample in samples)
        return {}


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
            "two spaces are the same", field="representation.spaces", value=twice[0],
            remedy="Give them another hookpoint, SAE or token_aggregate, or drop one.",
        )  # fmt: skip
    return tuple(sources)


def _other_sae(config: VectorJob, settings: SpaceConfig, representer: Representer) -> Source:
    """Another aggregate of the run's SAE, or another SAE of the run's model."""
    aggregate = settings.token_aggregate or config.representation.token_aggregate
    update = {"token_aggregate": aggregate}
    changed = config.model_copy(
        update={"representation": config.representation.model_copy(update=update)}
    )
    if settings.sae is None:
        other = open_representer(changed, representer.workspace, representer.sae, representer)
        return Source(f"{other.model_input.hookpoint}/{aggregate}", settings, other)
    changed = changed.model_copy(
        update={
            "model": config.model.model_copy(update={"hookpoint": settings.hookpoint or ""}),
            "sae": config.sae.model_copy(update={"path": settings.sae, "train": None}),
        }
    )
    other = open_representer(changed, representer.workspace, settings.sae, representer)
    sae = other.coder.info.sae_id[:6]
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
    folder = source.representer.workspace.shards / source.shards_id
    size = source.representer.config.compute.unit_examples

    def waiting() -> list[NDArray[np.int64]]:
        return units_of(rendered, open_shards(folder), size)

    def count() -> None:
        units, keys = waiting(), rendered.keys()
        with stage(source.name, sum(map(len, units)), "examples") as handle:
            for unit in units:
                counted = source.counts(rendered.samples(unit))
                unit_id = content_id([source.name, keys[unit].tobytes().hex()], n_hex=24)
                write_shard(folder, unit_id, keys[unit], counted, _report(counted))
                handle.advance(len(unit))
            handle.detail = f"{sum(map(len, units)):,} examples counted"

    do_once(folder / ".leases", "count", lambda: not waiting(), count)


def _report(counted: SparseRows) -> UnitReport:
    mass = int(counted.values.sum(dtype=np.int64))
    return UnitReport(
        n_samples=len(counted),
        n_tokens=mass,
        n_values=len(counted.values),
        n_empty=int((np.diff(counted.indptr) == 0).sum()),
        n_zeroed=0,
        n_clipped=0,
        mass=float(mass),
        mass_cut=0.0,
        mass_changed=0.0,
        plan="full",
    )


def _weighted(config: SelectConfig, source: Source, counted: SpaceCounts) -> Space:
    ranking, settings = config.ranking, source.settings
    weights = latent_weights(
        settings.weights or ranking.weights,
        counted.frequency,
        counted.n,
        max_document_frequency=ranking.max_document_frequency,
    )
    length = 0
    if ranking.normalize == "pool":
        length = average_length(weights, counted.masses, counted.n)
    return Space(source.name, weights, settings.weight, length=length)


@dataclass(frozen=True)
class JointVectors:
    """The vectors of one pool in every space of a run.

    names: of the spaces, as explanations call them.
    parts: the vectors of each space; a sample has the same vector number in all of them.
    """

    names: tuple[str, ...]
    parts: tuple[PoolVectors, ...]

    def blocks(
        self, *, only: NDArray[np.bool_] | None = None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[NDArray[np.int64], list[SparseRows]]]:
        """(vector numbers, their vectors in every space), every vector exactly once.

        only, share: as in `PoolVectors.blocks`.
        """
        first, others = self.parts[0], self.parts[1:]
        for numbers, rows in first.blocks(only=only, share=share):
            yield numbers, [rows, *(other.gather_vectors(numbers) for other in others)]

    def gather(self, rows: NDArray[np.int64]) -> list[SparseRows]:
        """Vectors of a few pool rows in every space."""
        return [part.gather(rows) for part in self.parts]


@dataclass(frozen=True)
class SpaceVectors(JointVectors):
    """The vectors of one pool in every space of a run, and where they come from."""

    pool_id: str
    sources: tuple[Source, ...]


def open_spaces(config: SelectConfig, representer: Representer, pool_id: str) -> SpaceVectors:
    """The vectors of a pool whose spaces were all embedded before."""
    sources = open_sources(config, representer)
    names = tuple(source.name for source in sources)
    parts = tuple(source.vectors(pool_id) for source in sources)
    return SpaceVectors(names, parts, pool_id, sources)


def count_documents(
    config: SelectConfig, vectors: SpaceVectors, *, verify: bool = False
) -> tuple[list[SpaceCounts], NDArray[np.bool_]]:
    """First pass: counts of every space, and which vectors fire.

    verify: hash every shard on the way; raises InputError naming a file that was altered.
    """
    first = vectors.parts[0]
    times, fires = first.multiplicity(), np.zeros(first.n_vectors, np.bool_)
    counts: list[SpaceCounts] = []
    with stage("weights", first.n_vectors * len(vectors.parts), "vectors") as handle:
        for part in vectors.parts:
            frequency, masses = np.zeros(0, np.int64), np.zeros(0, np.int64)
            own = np.zeros(first.n_vectors, np.bool_)
            for numbers, rows in part.blocks(verify=verify):
                if not len(frequency):
                    frequency = np.zeros(rows.n_latents, np.int64)
                frequency += document_frequency(rows, times[numbers])
                if config.ranking.normalize == "pool":
                    found = column_masses(rows, times[numbers])
                    masses = masses + found if len(masses) else found
                own[numbers] = np.diff(rows.indptr) > 0
                handle.advance(len(numbers))
            counts.append(SpaceCounts(frequency, int(times[own].sum()), masses))
            fires |= own
        used = " + ".join(f"{int((each.frequency > 0).sum()):,}" for each in counts)
        handle.detail = f"{used} columns fire in {int(times[fires].sum()):,} examples"
    return counts, fires


def joint_of(config: SelectConfig, vectors: SpaceVectors, counts: Counts) -> Joint:
    """The spaces with their weights."""
    spaces = [
        _weighted(config, source, counted)
        for source, counted in zip(vectors.sources, counts, strict=True)
    ]
    return Joint(spaces, normalize=config.ranking.normalize != "none")


def own_number(vectors: SpaceVectors) -> int:
    """Which of the spaces is that of the run's own model and SAE."""
    return next(i for i, source in enumerate(vectors.sources) if source.settings.is_own)


@dataclass(frozen=True)
class JointTarget:
    """One target task in the joined spaces.

    joint:  spaces and weights, the same for every target.
    parts:  the exemplars' vectors in each space.
    rows:   the same as vectors of the whole.
    terms:  for every space, column -> term of the exemplars; empty for an SAE.
    shares: (n_columns,) share of the pool's examples that have each column.
    """

    joint: Joint
    parts: tuple[SparseRows, ...]
    rows: SparseRows
    terms: tuple[Mapping[int, str], ...]
    shares: NDArray[np.float64]


def join_targets(
    config: SelectConfig,
    vectors: SpaceVectors,
    counts: Counts,
    targets: Targets,
) -> dict[str, JointTarget]:
    """Weights and joined exemplars of every target."""
    found: dict[str, list[SparseRows]] = {name: [] for name in targets}
    terms: dict[str, list[Mapping[int, str]]] = {name: [] for name in targets}
    tables = {name: table for name, (table, _) in targets.items()}
    renderer = vectors.sources[0].representer.model_input.renderer
    samples = {name: render_rows(renderer, table) for name, table in tables.items()}
    for source in vectors.sources:
        embedded = targets
        if not source.is_lexical and not source.settings.is_own:
            embedded = embed_targets(source.representer, config, tables)
        for name, (_, exemplars) in embedded.items():
            lexical = source.is_lexical
            found[name].append(source.counts(samples[name]) if lexical else exemplars.rows)
            terms[name].append(source.terms(samples[name]))
    shares = np.concatenate([each.frequency / max(each.n, 1) for each in counts])
    joint = joint_of(config, vectors, counts)
    return {
        name: JointTarget(joint, tuple(parts), joint.rows(parts), tuple(terms[name]), shares)
        for name, parts in found.items()
    }


def own_space(
    vectors: SpaceVectors, targets: Mapping[str, JointTarget]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Weights of the run's own space for the first target, and its latents' shares of the pool.

    Near-duplicates and diversity are judged in this space alone.
    """
    number, target = own_number(vectors), next(iter(targets.values()))
    first, last = target.joint.offsets[number : number + 2]
    return target.joint.spaces[number].weights, target.shares[first:last]
