"""Small seeded inputs that every test file may use: a model, its SAE, a pool and exemplars.

Nothing is downloaded; all of it is written once a session into pytest's temporary folder.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # A test that reaches for the network must fail at once.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"] = ""  # Prefect would keep our messages from caplog.
if "PREFECT_HOME" not in os.environ:  # The user's own may hold the database of another version.
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-of-tests-")
    atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)
if "PYTEST_XDIST_WORKER" in os.environ:  # Each of several workers has one core for itself.
    for _name in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{_name}_NUM_THREADS"] = "1"
    os.environ["POLARS_MAX_THREADS"] = "1"

import pytest

from flows.orchestration.prefect_server import TemporaryServer
from tests.tiny_model import (
    TINY_HOOKPOINT,
    make_tiny_tokenizer,
    tiny_row,
    write_jsonl,
    write_tiny_model,
    write_tiny_sae,
)

_EXIT_STATUS: dict[str, int] = {}


SLOW_MODULES = {
    "test_activations_mlp_hidden", "test_api", "test_audit_exclusions",
    "test_audit_forget_and_bundle", "test_audit_reproduce",
    "test_benchmark", "test_benchmarks_demo_training", "test_catalog_commit",
    "test_catalog_integrity", "test_queries_lookup", "test_queries_sql", "test_catalog_writers",
    "test_cli", "test_cli_bad_input", "test_cli_train_sae", "test_core_redaction",
    "test_data_memory", "test_decide_held_out_job", "test_docs_questions",
    "test_evaluation_held_out", "test_evaluation_label_free", "test_export", "test_export_files",
    "test_export_push_hub", "test_export_push_url", "test_orchestration_trackers",
    "test_finetune_flow", "test_finetuning_training", "test_flows", "test_fuzz_configs",
    "test_layout", "test_activations_model", "test_activations_shared_prefixes",
    "test_pools_bad_vectors", "test_prepare_rules", "test_rank_candidates",
    "test_report_browser", "test_report_compare", "test_report_page", "test_represent_on_cuda",
    "test_represent_spaces", "test_representation_cuda_memory",
    "test_representation_on_cuda", "test_sae_nonnegative", "test_sae_pursuit", "test_sae_training",
    "test_sae_training_architectures", "test_sae_training_on_models",
    "test_sae_explanations", "test_sae_target_quality", "test_sae_training_seminmf",
    "test_sae_vocabulary",
    "test_similarity_explain", "test_similarity_queries", "test_stages_estimate",
    "test_stages_main_job", "test_stages_recompute_keys", "test_stages_replay",
    "test_stages_sweep",
    "test_stages_session",
    "test_stages_spaces", "test_wording_reasons",
}  # fmt: skip  # names, several a line
"""Test files that take more than about 3 s in all; `make test-fast` leaves them out."""


FAULT_MODULES = {
    "test_audit_forget", "test_fuzz_catalog", "test_fuzz_commands", "test_fuzz_configs",
    "test_fuzz_pools", "test_represent_workers", "test_server_restart",
}  # fmt: skip  # names, several a line
"""Test files that kill, stop or damage something many times: `make faults`, not `make test`."""

_SERVER: list[TemporaryServer] = []


def pytest_configure(config: pytest.Config) -> None:
    """Start one Prefect server for all workers, so that not every flow starts one of its own."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        _SERVER.append(TemporaryServer())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished() -> None:
    """Let no test begin before the server answers."""
    for server in _SERVER:
        server.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of a slow file, and of one of faults."""
    for item in items:
        if item.path.stem in SLOW_MODULES | FAULT_MODULES:
            item.add_marker(pytest.mark.slow)
        if item.path.stem in FAULT_MODULES:
            item.add_marker(pytest.mark.fault)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember the outcome for `_leave`."""
    _EXIT_STATUS["code"] = int(exitstatus)


@atexit.register
def _leave() -> None:
    """Leave at once where Prefect was used: its daemon threads make DuckDB print "leaks"."""
    if "prefect" in sys.modules and "code" in _EXIT_STATUS:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_EXIT_STATUS["code"])


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that the other tiny fixtures write into."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def tiny_pool_path(tiny_dir: Path, tiny_pool_rows: list[dict[str, Any]]) -> Path:
    """JSONL file with 60 distinct rows: id, messages, source, licence, quality."""
    return write_jsonl(tiny_dir / "pool.jsonl", tiny_pool_rows)


@pytest.fixture(scope="session")
def tiny_pool_rows() -> list[dict[str, Any]]:
    """The rows of `tiny_pool_path`."""
    return [tiny_row(i) for i in range(60)]


@pytest.fixture(scope="session")
def tiny_exemplars_path(tiny_dir: Path) -> Path:
    """JSONL file with 6 arithmetic exemplars that are not in the pool."""
    return write_jsonl(tiny_dir / "exemplars.jsonl", [tiny_row(i) for i in range(400, 424, 4)])


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Byte-level BPE of at most 400 tokens; BOS comes from the chat template alone."""
    return make_tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_dir: Path, tiny_tokenizer: Any) -> Path:
    """Saved random Llama (4 blocks, width 32) with its tokenizer, as a user's model folder is."""
    return write_tiny_model(tiny_dir / "model", tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_sae_dir(tiny_dir: Path) -> Path:
    """Hookpoint folder of a random TopK SAE in the sparsify format, written by hand."""
    return write_tiny_sae(tiny_dir / "sae" / TINY_HOOKPOINT)


Paths = tuple[Path, Path, Path, Path]
"""Pool, exemplars, model and SAE: what `tests.run_stages.tiny_config` takes first."""


@pytest.fixture(scope="session")
def paths(
    tiny_pool_path: Path, tiny_exemplars_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path
) -> Paths:
    """The tiny job's files."""
    return tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir
