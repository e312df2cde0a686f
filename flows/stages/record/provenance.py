"""Where a run comes from: who asked, with which versions, from which files, through what.

Rows of the tables run, run_drop, run_source, artifact and latent_description.
"""

import platform
import socket
import subprocess
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows.config.base import DEMO
from flows.config.jobs import SelectConfig
from flows.stages.prepare.inputs import packaged
from flows.stages.record.material import Material, Row
from selection.core.hashing import content_id, file_sha256
from selection.core.redaction import without_secrets
from selection.rendering.renderer import render_key
from selection.sae.interpret.latents_file import read_descriptions
from storage.catalog.recorded import POOL, RENDERING, SHARDS, UNIT, file_row
from storage.files.atomic import MANIFEST
from storage.files.workspace import user_name

_NAMED_DROPS = 1000  # rows of one reason that are recorded one by one
PACKAGES = (
    "saelect",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "numba",
    "faiss-gpu",
    "faiss-cpu",
    "duckdb",
    "polars",
    "pyarrow",
    "prefect",
)


def run_row(material: Material) -> Row:
    """Who asked for what, when, and with which model, SAE and versions."""
    config, facts, representer = material.config, material.facts, material.representer
    model, sae = representer.model_input.model, representer.sae.info
    eligible = material.given.eligibility.eligible
    return {
        "run_id": facts.run_id,
        "name": facts.name,
        "created_at": facts.created_at,
        "finished_at": datetime.now(UTC),
        "config": without_secrets(config.model_dump(mode="json")),
        "versions": {"python": platform.python_version(), **_versions()},
        "git_sha": _git_sha(),
        "who": user_name(),
        "host": socket.gethostname(),
        "trigger": facts.trigger,
        "flow_run_id": facts.flow_run_id,
        "note": without_secrets(config.note),
        "pool_id": material.pool.pool_id,
        "representation_id": representer.representation_id,
        "model": DEMO if config.model.name == DEMO else model.name,
        "model_sha256": model.weights_sha256,
        "model_licence": model.licence,
        "sae": DEMO if config.sae.path == DEMO else representer.sae.path,
        "sae_sha256": sae.sha256,
        "sae_licence": sae.licence,
        "data_licences": material.pool.licence_counts(eligible, config.where),
        "hookpoint": str(representer.model_input.hookpoint),
        "unit": representer.unit,
        "seed": config.seed,
        "is_demo": config.model.name == DEMO,
        "counts": dict(facts.counts),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _git_sha() -> str | None:
    """Commit of the checkout that the code runs from, if it is one; `-dirty` if it was changed."""
    commit = _git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and _git("status", "--porcelain", "-uno") else commit or None


def _git(*words: str) -> str:
    """What git says; empty where there is no git or no checkout."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()


def drop_rows(material: Material) -> list[Row]:
    """Rows dropped while reading, each for itself; then counts by reason, and the first of them."""
    run_id, pool = material.facts.run_id, material.pool
    named = pool.dropped_rows(_NAMED_DROPS)
    rows: list[Row] = [{"run_id": run_id, "stage": "read", "n": 1, **row} for row in named]
    left = Counter(pool.drops)
    left.subtract(str(row["reason"]) for row in named)
    rows += [
        {"run_id": run_id, "stage": "read", "reason": reason, "n": n}
        for reason, n in left.items()
        if n
    ]
    eligibility = material.given.eligibility
    for reason, n in eligibility.drops.items():
        row: Row = {"run_id": run_id, "stage": "filter", "reason": str(reason), "n": n}
        if reason in eligibility.first:
            first = pool.first_occurrence(eligibility.first[reason])
            row |= {"file": first["file"], "row": first["row"]}
        rows.append(row)
    return [row for row in rows if row["n"]]


def source_rows(material: Material) -> list[Row]:
    """Ranked examples of the pool by source."""
    counts = material.pool.source_counts(material.given.eligibility.eligible, material.config.where)
    run_id = material.facts.run_id
    return [{"run_id": run_id, "source": name, "n_pool": n} for name, n in counts.items()]


def artifact_rows(material: Material) -> list[Row]:
    """The chain from files to selections, each with the hash that names its content."""
    run_id, representer = material.facts.run_id, material.representer
    pool_id, shards = material.pool.pool_id, representer.representation_id
    rows: list[tuple[str, str, str | None, str | None]] = [
        ("read", str(file["file"]), str(file["sha256"]), None) for file in material.pool.files
    ]
    prepared = file_sha256(material.pool.folder / MANIFEST)
    rows += [("prepare", f"pools/{pool_id}", prepared, name) for _, name, _, _ in rows]
    rows += [("read", path, sha256, None) for path, sha256 in listed_files(material.config).items()]
    for name, (table, _) in material.targets.items():
        ids = content_id(table["example_id"].to_pylist(), 64)
        rows.append(("exemplars", f"target {name}", ids, material.config.exemplars.path))
        keys = [render_key(sample).hex() for sample in representer.session.samples(table)]
        named = zip(table["example_id"].to_pylist(), keys, strict=True)
        rows += [("exemplars", f"vector of {each}", key, f"target {name}") for each, key in named]
    model, sae = representer.model_input.model, representer.sae.info
    rows.append(("represent", f"model {model.name}", model.weights_sha256, None))
    rows.append(("represent", f"sae {representer.sae.path}", sae.sha256, f"model {model.name}"))
    units = {shard.folder.name: shard.sha256 for shard in material.vectors.shards.shards}
    vectors = content_id(units, 64)
    rows.append(("represent", f"shards/{shards}", vectors, f"pools/{pool_id}"))
    for source, part in zip(material.spaces.sources, material.spaces.parts, strict=True):
        if source.shards_id != shards:
            units = {shard.folder.name: shard.sha256 for shard in part.shards.shards}
            counted = content_id(units, 64)
            rows.append(("represent", f"shards/{source.shards_id}", counted, f"pools/{pool_id}"))
    ranking = material.given.ranking
    rows.append(("rank", "weights", ranking.spaces.sha256(), f"shards/{shards}"))
    if ranking.join is not None:
        hashes = {name: ranking.of(name).spaces.sha256() for name in material.targets}
        rows += [("rank", f"weights of {name}", each, "weights") for name, each in hashes.items()]
    for decided in material.decided:
        top = material.top_of(decided)
        picked = content_id([top["example_id"].to_pylist(), top["score"].to_pylist()], 64)
        rows.append(("select", decided.selection_id, picked, "weights"))
    names = ("step", "artifact", "sha256", "parent")
    return [
        {"run_id": run_id, **dict(zip(names, without_secrets(list(row)), strict=True))}
        for row in rows
    ]


def file_rows(material: Material) -> list[Row]:
    """Fixed-point units, and the manifests of all that was ranked, which name their files."""
    workspace, at = material.representer.workspace, datetime.now(UTC)
    parts = [material.vectors, *material.spaces.parts]
    readers = [material.representer, *(source.representer for source in material.spaces.sources)]
    pool_id = material.pool.pool_id
    used = {
        POOL: {material.pool.folder / MANIFEST},
        RENDERING: {each.rendered(pool_id).folder / MANIFEST for each in readers},
        UNIT: {each.unit_file for each in readers},
        SHARDS: {shard.folder / MANIFEST for part in parts for shard in part.shards.shards},
    }
    return [
        file_row(workspace, kind, path, at)
        for kind, paths in used.items()
        for path in sorted(paths)
    ]


def listed_names(config: SelectConfig) -> list[str]:
    """Files besides pools and exemplars that decide: id lists and evaluation items."""
    named = [path for path in (config.include, config.exclude) if isinstance(path, str) and path]
    rule = config.decontamination
    return named + ([packaged(file.path) for file in rule.files] if rule else [])


def listed_files(config: SelectConfig) -> dict[str, str]:
    """Hashes of those that are single files here."""
    return {path: file_sha256(Path(path)) for path in listed_names(config) if Path(path).is_file()}


def description_rows(material: Material) -> list[Row]:
    """What the latents respond to, where `saelect describe` or the SAE's own folder says so."""
    sae, workspace = material.representer.sae.info, material.representer.workspace
    folders = (workspace.described(sae.sae_id), Path(sae.path))
    descriptions = next((f for f in (read_descriptions(d, sae.sha256) for d in folders) if f), {})
    return [
        {"sae": sae.sha256, "latent": latent, "description": text}
        for latent, text in descriptions.items()
    ]
