"""Which stage works again when a parameter changes: every key of a config, against every stage.

A stage counts as having worked when it left something new in the workspace; the selection itself
is drawn anew in every run and keeps nothing that another run would reuse.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from pydantic import BaseModel

from flows.config.jobs import SelectConfig
from flows.config.load import resolve
from flows.stages.prepare.render import open_model_input
from flows.stages.represent.sae import trained_folder
from selection.sae.training.settings import TrainSettings
from storage.files.atomic import is_complete, read_json
from storage.files.workspace import Workspace, open_workspace
from tests.run_stages import compute_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl

N_POOL, N_EXEMPLARS = 60, 6
TRAIN = {"num_latents": 64, "k": 4, "tokens": 1024, "batch_tokens": 256}

Stage = Literal["pool", "render", "sae", "calibrate", "embed", "count words", "index"]
STAGES = set(get_args(Stage))
FILES = {"pool": "pools/*", "render": "pools/*/renderings/*", "sae": "saes/*", "index": "indexes/*"}


@dataclass(frozen=True)
class Change:
    """One key with another value, the stages that work again, and the vectors they compute."""

    key: str
    value: Any
    stages: set[str]
    n_vectors: int = 0


READ = {"pool", "render", "index"}
ALL_VECTORS = N_POOL + N_EXEMPLARS
REPRESENT = {"calibrate", "embed", "index"}

CHANGES = [
    # The vectors of a pool are found by what was rendered, wherever it was read.
    Change("pool.path", "GROWN", READ | {"embed"}, 5),
    Change("pool.name", "other", READ),
    Change("pool.shape", "messages", READ),
    Change("pool.columns", {"id": "id"}, READ),
    Change("pool.broken_rows", "drop", READ),
    Change("exemplars.path", "OTHER_EXEMPLARS", {"embed"}, 4),
    Change("model.name", "OTHER_MODEL", REPRESENT | {"sae"}, ALL_VECTORS),
    Change("model.hookpoint", "resid@1", REPRESENT | {"sae"}, ALL_VECTORS),
    Change("model.dtype", "bfloat16", {"sae", *REPRESENT}, ALL_VECTORS),
    Change("sae.path", "GIVEN_SAE", REPRESENT, ALL_VECTORS),
    Change("sae.train", {**TRAIN, "seed": 1}, REPRESENT | {"sae"}, ALL_VECTORS),
    Change("sae.scale", "decoder_norm", REPRESENT, ALL_VECTORS),
    Change("rendering.template", "plain", REPRESENT | {"render", "sae"}, ALL_VECTORS),
    Change("rendering.counted", "response", REPRESENT | {"render", "sae"}, ALL_VECTORS),
    # Six examples and one exemplar, of several turns, are longer; other tokens stay the same.
    Change("rendering.max_length", 64, {"render", "embed", "index"}, 7),
    Change("rendering.truncation", "start", {"render", "index"}),
    Change("representation.token_aggregate", "max", REPRESENT, ALL_VECTORS),
    Change("representation.spaces", ["sae", "words"], {"count words"}),
    Change("representation.keep_top", 3, {"embed", "index"}, ALL_VECTORS),
    Change("representation.encoder_inputs", "bfloat16", {"embed", "index"}, ALL_VECTORS),
    Change("representation.max_norm_ratio", 2.0, REPRESENT, ALL_VECTORS),
    Change("representation.drop_ever_present", 0.9, REPRESENT, ALL_VECTORS),
    Change("faiss.n_dims", 32, {"index"}),
    Change("faiss.seed", 1, {"index"}),
    Change("faiss.flat_up_to", 10, {"index"}),
    Change("faiss.n_lists", 3, {"index"}),
    Change("faiss.n_probes", 3, {"index"}),
    Change("faiss.candidates_per_neighbor", 3, {"index"}),
]

ONLY_THE_SELECTION = {
    "name": "other", "note": "again",  "seed": 3, "where": "quality > 1",
    "drop_exemplar_copies": False, "combine": "joint", "target_weights": {"target": 2},
    "include": ["row-1"], "exclude": ["row-2"], "min_score": 0.01, "index": False,
    "quotas": [{"column": "source", "others": {"cap": 5}}], "controls": ["random"],
    "export.formats": ["ids"], "export.columns": ["weight"], "export.order": "length",
    "export.seed": 4, "export.temperature": 2.0, "explain_top": 3, "explain_exemplars": 2,
    "explain_generic": 0.4, "explain_tokens": 1,
    "budget.tokens": 300, "budget.sweep": [250], "budget.max_length": 99,
    "budget.trainee_tokenizer": "MODEL",
    "check.folds": 3, "check.draws": 30, "check.pseudo_exemplars": 25, "check.max_rows": 2000,
    "check.dominates": 0.6, "length.min_tokens": 2, "length.max_tokens": 900,
    "near_duplicates.similarity": 0.8, "near_duplicates.text_overlap": 0.6,
    "near_duplicates.shingle_words": 2, "diversity.trade": 0.5, "diversity.multiple": 2.0,
    "replay.share": 0.2,
    "decontamination.exemplars": False, "decontamination.files": ["EXEMPLARS"],
    "decontamination.shortest": 7, "decontamination.longest": 12, "decontamination.pool_rows": 9,
    "decontamination.pool_share": 0.01, "decontamination.template_share": 0.02,
    "decontamination.item_share": 0.5, "decontamination.flag_similarity": 0.8,
    "ranking.method": "bm25", "ranking.exemplar_reduction": "max", "ranking.weights": "none",
    "ranking.max_document_frequency": 0.9, "ranking.normalize": "l1",
    "exemplars.name": "other", "exemplars.shape": "messages", "exemplars.columns": {"id": "id"},
    "exemplars.broken_rows": "drop", "exemplars.target": "sums", "sae.check": "off",
    "sae.trust_model": True,
    "model.device": "cpu", "model.trust_remote_code": True, "compute.threads": 2,
    "compute.tokens_per_batch": 300, "compute.packing": "padded", "compute.workers": 2,
    "compute.share_prefixes": False, "compute.unit_examples": 7,
    "compute.verify_shards": False, "faiss.recall_queries": 4,
    "faiss.gpu": "off", "ranking.candidates": 50, "ranking.recall_vectors": 10,
}  # fmt: skip
"""Changed all at once, these keys compute nothing."""

NOT_HERE = {
    "pool.subset", "pool.split", "pool.revision", "model.revision",  # of the hub
    "model.adapter", "model.gguf_file",  # other hashes of the model: test_models_adapters
    "exemplars.subset", "exemplars.split", "exemplars.revision",
    "compute.task_runner",  # needs a cluster; test_on_ray holds it to the same bytes
    "track",  # where a run is logged, by packages that are extras: test_orchestration_trackers
    "preset",  # a name for other values of keys that are walked
    "exemplars.targets",  # of targets files; which exemplars are embedded follows from it
    "ranking.search",  # not without `index`; test_candidates shows that it adds nothing
    "replay.tokens",  # as the share
    "budget.examples", "budget.fraction",  # a budget has one unit; that of tokens is changed
    # How the bytes and turns of a file are read: what differs then are other samples.
    "exemplars.answers", "exemplars.delimiter", "exemplars.encoding",
    "exemplars.quoting", "exemplars.roles", "exemplars.turns",
    "pool.answers", "pool.delimiter", "pool.encoding",
    "pool.quoting", "pool.roles", "pool.turns",
}  # fmt: skip


def leaves(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Dotted names of all keys of a config; `sae.train` is one, its keys are walked below."""
    for key, info in model.model_fields.items():
        inner = model_in(info.annotation)
        is_list = str(info.annotation).startswith(("tuple", "list")) and key != "pool"
        if inner is None or is_list or inner is TrainSettings:
            yield before + key
        else:
            yield from leaves(inner, f"{before}{key}.")


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return found


@pytest.fixture(scope="module")
def names(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What the capital words of the tables stand for."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("others")
    other = folder / "model"
    shutil.copytree(tiny_model_dir, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] * 1.5
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    grown = write_jsonl(folder / "grown.jsonl", [tiny_row(i) for i in range(N_POOL + 5)])
    exemplars = [tiny_row(i) for i in range(412, 440, 4)]  # three known ones and four new ones
    return {
        "POOL": str(tiny_pool_path),
        "GROWN": str(grown),
        "EXEMPLARS": str(tiny_exemplars_path),
        "OTHER_EXEMPLARS": str(write_jsonl(folder / "exemplars.jsonl", exemplars)),
        "MODEL": str(tiny_model_dir),
        "OTHER_MODEL": str(other),
        "GIVEN_SAE": str(tiny_sae_dir),
    }


def config_of(names: Mapping[str, str], changes: Mapping[str, Any]) -> SelectConfig:
    given = nested(json.loads(_named(json.dumps(changes), names)))
    base = tiny_config(
        Path(names["POOL"]), Path(names["EXEMPLARS"]), Path(names["MODEL"]), {"train": TRAIN}
    ).model_dump(mode="json", exclude_unset=True)
    if "path" in given.get("sae", {}):
        base["sae"].pop("train")
    if "budget" in given:
        base.pop("budget")
    base["pool"] = {**base["pool"][0], **given.pop("pool", {})}
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = {**base[key], **value} if both else value
    return resolve(base)


def _named(text: str, names: Mapping[str, str]) -> str:
    for word, path in names.items():
        text = text.replace(f'"{word}"', json.dumps(path))
    return text


@dataclass(frozen=True)
class Kept:
    """What a workspace holds, by stage; vectors by unit."""

    files: dict[str, set[Path]]
    vectors: dict[Path, int]

    def new_since(self, before: "Kept") -> tuple[set[str], int]:
        fresh = {stage for stage, files in self.files.items() if files - before.files[stage]}
        units = set(self.vectors) - set(before.vectors)
        return fresh | ({"embed"} if units else set()), sum(self.vectors[unit] for unit in units)


def kept(workspace: Workspace) -> Kept:
    root = workspace.root
    files = {
        stage: {file.relative_to(root) for file in root.glob(pattern) if file.name[0] != "."}
        for stage, pattern in FILES.items()
    }
    files["calibrate"] = {file.relative_to(root) for file in workspace.units.glob("*.json")}
    files["count words"], vectors = set(), {}
    for unit in workspace.shards.glob("*/*"):
        if is_complete(unit):
            manifest = read_json(unit / "manifest.json")
            if manifest["n_latents"] == TRAIN["num_latents"]:
                vectors[unit.relative_to(root)] = int(str(manifest["n_rows"]))
            else:
                files["count words"].add(unit.relative_to(root))
    return Kept(files, vectors)


@pytest.fixture(scope="module")
def calm(names: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the unchanged config has been computed."""
    workspace = open_workspace(tmp_path_factory.mktemp("calm"))
    compute_job(config_of(names, {}), workspace)
    found = kept(workspace)
    assert {stage for stage, files in found.files.items() if files} | {"embed"} == STAGES - {
        "count words"
    }
    assert sum(found.vectors.values()) == ALL_VECTORS
    return workspace


def recomputed(calm: Workspace, config: SelectConfig, folder: Path) -> tuple[set[str], int]:
    """The stages that work when the config follows the unchanged one, and their new vectors."""
    shutil.copytree(calm.root, folder, dirs_exist_ok=True)
    workspace = open_workspace(folder)
    before = kept(workspace)
    compute_job(config, workspace)
    return kept(workspace).new_since(before)


def test_every_key_of_a_config_is_in_a_table() -> None:
    walked = {change.key for change in CHANGES} | set(ONLY_THE_SELECTION) | NOT_HERE
    assert walked == set(leaves(SelectConfig))


@pytest.mark.parametrize("change", CHANGES, ids=[change.key for change in CHANGES])
def test_a_changed_key_recomputes_what_depends_on_it_and_nothing_else(
    change: Change, calm: Workspace, names: dict[str, str], tmp_path: Path
) -> None:
    config = config_of(names, {change.key: change.value})
    assert config != config_of(names, {})
    assert recomputed(calm, config, tmp_path) == (change.stages, change.n_vectors)


def test_keys_of_the_selection_recompute_nothing(
    calm: Workspace, names: dict[str, str], tmp_path: Path
) -> None:
    config, base = config_of(names, ONLY_THE_SELECTION), config_of(names, {})
    for key in ONLY_THE_SELECTION:
        assert value_at(config, key) != value_at(base, key), key
    assert recomputed(calm, config, tmp_path) == (set(), 0)


def value_at(config: BaseModel, key: str) -> object:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return value


def test_every_key_of_the_training_names_another_sae(names: dict[str, str], tmp_path: Path) -> None:
    config = config_of(names, {})
    model_input = open_model_input(config)
    base = TrainSettings.model_validate(TRAIN)
    others: dict[str, Any] = {
        "architecture": "batchtopk", "num_latents": 65, "k": 5, "k_start": 6, "k_anneal_share": 0.1,
        "widths": (8, 64), "residual_threshold": 0.1, "groups": 4, "tokens": 2048,
        "batch_tokens": 128, "auxk_alpha": 0.5,
        "dead_after_tokens": 7, "learning_rate": 0.1, "warmup_steps": 2, "decay_share": 0.5,
        "max_norm_ratio": 3.0, "seed": 1,
    }  # fmt: skip
    assert set(others) == set(TrainSettings.model_fields)
    changed = [base, *(base.model_copy(update={key: value}) for key, value in others.items())]
    folders = {trained_folder(settings, config, tmp_path, model_input) for settings in changed}
    assert len(folders) == len(changed)
    later = {"residual_threshold", "groups"}  # names were given before there were such keys
    assert not later & {*base.identity()}
