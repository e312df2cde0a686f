"""First stages: the config's files are checked and read, the pool prepared, the budget held to it.

Everything that can be refused without a model is refused here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import pyarrow as pa

from flows.config.base import DEMO
from flows.config.data import ExemplarsConfig, PoolConfig
from flows.config.jobs import PoolJob, SelectConfig
from flows.orchestration.progress import stage
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.data.coverage import ReadReport
from selection.data.exemplars import read_exemplars
from selection.data.messages.contents import has_response
from selection.data.remedies import drop_lines
from selection.data.samples import conversations_of
from selection.picking.eligibility import Eligibility, eligible_by_content
from selection.records import PoolSource
from storage.files.hashes import FileHashes
from storage.files.leases import Leases
from storage.files.workspace import Workspace
from storage.pools.pool import PreparedPool
from storage.pools.prepare import prepare_pool

PACKAGED = f"{DEMO}:"


def packaged(path: str) -> str:
    """`demo:pool.jsonl` names a file inside the installed package; other paths stay as they are."""
    if not path.startswith(PACKAGED):
        return path
    return str(files("flows") / "demo" / path.removeprefix(PACKAGED))


def source_of(pool: PoolConfig) -> PoolSource:
    """The pool's record, with packaged paths resolved."""
    return replace(pool.as_source(), path=packaged(pool.path))


def read_targets(
    exemplars: ExemplarsConfig, report: ReadReport | None = None
) -> dict[str, pa.Table]:
    """Target name -> its exemplars (POOL_SCHEMA), in file order. Raises InputError.

    report: filled with what was read of them and what was not.
    """
    source = source_of(exemplars)
    table = read_exemplars(source, exemplars.targets, exemplars.target, report)
    names = table["target"].to_pylist()
    return {
        name: table.filter(pa.array([other == name for other in names]))
        for name in dict.fromkeys(names)
    }


def refuse_without_response(config: SelectConfig, targets: Mapping[str, pa.Table]) -> None:
    """Exemplars without a response are compared by prompts on both sides, or not at all.

    Otherwise the pool's responses would count against prompts, and every score would sink.
    """
    if config.rendering.counted == "prompt":
        return
    for name, table in targets.items():
        for row in table.to_pylist():
            if not has_response(json.loads(row["messages"])):
                raise InputError(
                    f"exemplar {row['own_id'] or row['example_id'][:12]} of `{name}` has no"
                    f" response, and rendering.counted is `{config.rendering.counted}`",
                    file=row["file"],
                    line=row["row"],
                    remedy="Give it a response, or set `rendering: {counted: prompt}`.",
                )


def prepare(config: PoolJob, workspace: Workspace) -> PreparedPool:
    """Read, normalize and sort the pools into the workspace, or reuse what is there."""
    hash_file = FileHashes(workspace.file_hashes).sha256
    sources = [source_of(pool) for pool in config.pool]
    name = "pool-" + content_id([asdict(source) for source in sources], n_hex=24)
    with stage("pool", unit="rows") as handle, Leases(workspace.leases).acquire(name):
        pool = prepare_pool(sources, workspace.pools, handle.advance, hash_file)
        dropped = sum(pool.drops.values())
        handle.detail = (
            f"{pool.n_rows:,} rows read, {dropped:,} dropped, {pool.n_examples:,} unique examples"
        )
        handle.notes += pool.report
        handle.notes += [f"dropped {line}" for line in drop_lines(pool.drops, pool.first_drops)]
    return pool


def id_names(listed: str | Sequence[str], field: str) -> list[str]:
    """The ids themselves, or those in a file of one per line. Raises InputError."""
    if not isinstance(listed, str):
        return list(listed)
    try:
        lines = Path(listed).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"the list cannot be read ({error.strerror})",
            field=field,
            value=listed,
            remedy="Give a text file with one id per line, or the ids as a list.",
        ) from None
    return [line.strip() for line in lines if line.strip()]


def eligible_examples(
    config: SelectConfig, pool: PreparedPool, targets: Mapping[str, pa.Table]
) -> Eligibility:
    """Apply `where`, take out exact copies of exemplars, and hold the budget against the rest.

    Raises InputError where the budget asks for more than survives.
    """
    tables = targets.values() if config.drop_exemplar_copies else ()
    answers = (
        has_response(messages)
        for batch in pool.iter_examples()
        for messages, _ in conversations_of(batch)
    )
    eligibility = eligible_by_content(
        pool.eligible(config.where),
        pool.example_ids().astype(str),
        [example_id for table in tables for example_id in table["example_id"].to_pylist()],
        pool.rows_of_ids(id_names(config.exclude, "exclude"))[0],
        None if config.rendering.counted == "prompt" else answers,
    )
    _refuse_large_budget(config, eligibility.n, pool.n_examples)
    return eligibility


def ineligible_lines(pool: PreparedPool, eligibility: Eligibility) -> list[str]:
    """Why examples of the pool may not be picked: count, first occurrence and remedy of each."""
    first = {}
    for reason, row in eligibility.first.items():
        occurrence = pool.first_occurrence(row)
        first[str(reason)] = {"file": occurrence["file"], "row": occurrence["row"], "detail": ""}
    return drop_lines({str(reason): n for reason, n in eligibility.drops.items()}, first)


def _refuse_large_budget(config: SelectConfig, n_eligible: int, n_examples: int) -> None:
    """A budget that no later stage can meet is refused before any model is loaded."""
    if n_eligible == 0:
        raise InputError(
            f"none of the {n_examples:,} examples passes",
            field="where",
            value=config.where,
            remedy="Loosen the expression; `saelect init` shows the columns and some values.",
        )
    wanted = config.budget.examples
    if wanted is not None and wanted > n_eligible:
        raise InputError(
            f"more than the {n_eligible:,} examples that survive reading and `where`",
            field="budget.examples",
            value=wanted,
            remedy=f"Ask for at most {n_eligible:,}, loosen `where`, or add to the pool.",
        )
    fraction = config.budget.fraction
    if fraction is not None and int(fraction * n_eligible) == 0:
        raise InputError(
            f"less than one of the {n_eligible:,} eligible examples",
            field="budget.fraction",
            value=fraction,
            remedy=f"Ask for at least {1 / n_eligible:.2g}.",
        )


def is_demo_model_on_foreign_pool(config: SelectConfig) -> bool:
    """Whether the demonstration model represents a pool that is not the demonstration's."""
    return config.model.name == DEMO and any(
        not pool.path.startswith(PACKAGED) for pool in config.pool
    )
