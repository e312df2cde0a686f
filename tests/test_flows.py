"""The Prefect flows on the tiny model, against a real server of the test harness."""

import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from flows.config.jobs import SelectConfig, VectorJob
from flows.embed_pool import run_embedding
from flows.index_pool import run_indexing
from flows.prepare_pool import run_prepare
from flows.select_data import select_data
from flows.server import flows as deployed
from flows.server.deployments import form_of, listed
from flows.stages.represent import units
from flows.stages.represent.representer import represent_samples
from flows.train_sae import train_sae
from storage.files.workspace import Workspace
from storage.queries.lookup import list_selections
from tests.run_stages import tiny_config

pytestmark = [
    pytest.mark.slow,
    # Prefect's own threads and databases leave these behind; none comes from this project.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    # A flow waits up to a second for its heartbeat thread; tests do not need one.
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture(scope="module")
def config(
    tiny_pool_path: Path, tiny_exemplars_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path
) -> SelectConfig:
    return tiny_config(
        tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir, controls=["random"]
    )


def test_select_data_leaves_selections_exports_reports_and_artifacts(
    config: SelectConfig, tmp_path: Path
) -> None:
    results = select_data(config, str(tmp_path / "w"), run_name="tiny")
    workspace = Workspace(tmp_path / "w")
    assert [row["n_selected"] for row in results] == [7, 7]
    assert {row.name for row in list_selections(workspace)} == {"tiny", "tiny-random"}
    assert (workspace.exports / "tiny" / "train.jsonl").exists()
    assert (workspace.reports / "tiny.html").exists()
    with get_client(sync_client=True) as client:
        artifacts = client.request("POST", "/artifacts/filter", json={"limit": 100}).json()
    keys = {artifact["key"] for artifact in artifacts}
    assert {"selections", "selection-target"} <= keys
    page = next(a["data"] for a in artifacts if a["key"] == "selection-target")
    for words in ("7 of", "score curve", "Sources: pool", "Dropped", "Top picks", "saelect sql"):
        assert words in page
    tables = {a["key"]: a["data"] for a in artifacts if a["type"] == "table"}
    assert "word" not in tables["selections"]
    assert "tiny-random" in tables["selections"]


def test_each_stage_runs_alone(config: SelectConfig, tmp_path: Path) -> None:
    job = VectorJob.model_validate(config.model_dump(include=set(VectorJob.model_fields)))
    root = str(tmp_path / "w")
    made = run_prepare(job, root)
    assert (tmp_path / "w" / "pools" / str(made["pool"]) / "manifest.json").exists()
    assert train_sae(job, root) == job.sae.path
    assert run_embedding(job, root)["computed"] == 60
    assert run_embedding(job, root) == {**made, "computed": 0, "reused": 60, "tokens": 0}
    assert (Path(str(run_indexing(job, root)["index"])) / "index.faiss").exists()


@pytest.mark.parametrize("given", listed(), ids=lambda given: given["name"])
def test_a_deployment_has_a_flow_and_a_form_that_is_closed_described_and_short(
    given: dict[str, Any],
) -> None:
    module, function = given["entrypoint"].rsplit(".", 1)
    flow = getattr(deployed, function)
    schema = parameter_schema(flow).model_dump()
    assert module == "flows.server.flows"
    assert form_of(flow.name)["parameter_openapi_schema"] == {
        **schema,
        "additionalProperties": False,
    }
    assert given["description"]
    assert len(schema["properties"]) <= 7
    assert schema["properties"].get("advanced", {}).get("default") is None  # folded
    for field in schema["properties"].values():
        assert field["title"][0].isupper()
        assert field.get("description") or "$ref" in field
    for model in schema["definitions"].values():
        assert model.get("additionalProperties") is False or "enum" in model


@pytest.mark.parametrize(
    ("budget", "is_right"),
    [
        ({"unit": "examples", "amount": 40}, True),
        ({"amount": 40}, True),
        ({"unit": "fraction", "amount": 0.05}, True),
        ({"unit": "examples", "amount": 0.005}, False),
        ({"unit": "fraction", "amount": 1.5}, False),
        ({"unit": "tokens", "amount": 10.5}, False),
    ],
)
def test_the_schema_knows_the_range_of_a_budget(budget: dict[str, Any], is_right: bool) -> None:
    schema = parameter_schema(deployed.select_data).model_dump()
    given = {"pool": "p", "exemplars": "e", "budget": budget}
    assert (validate(given, schema, raise_on_error=False) == []) is is_right


def test_a_filled_page_selects_and_a_second_run_says_what_it_reused(
    config: SelectConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAELECT_WORKSPACE", str(tmp_path / "w"))
    monkeypatch.setenv("SAELECT_DATA_FOLDERS", tempfile.gettempdir())
    page = {
        "pool": config.pool[0].path,
        "exemplars": config.exemplars.path,
        "budget": {"unit": "examples", "amount": 7},
        "model": config.model.name,
        "sae": config.sae.path,
        "preset": "best",
        "advanced": {
            "model": {"hookpoint": config.model.hookpoint},
            "rendering": {"max_length": 128},
        },
    }
    first = deployed.select_data(**deployed.select_data.validate_parameters(page))
    second = deployed.select_data(**deployed.select_data.validate_parameters(page))
    assert [row["n_selected"] for row in first] == [7]
    assert first[0]["cut_score"] == second[0]["cut_score"]
    with get_client(sync_client=True) as client:
        artifacts = client.request("POST", "/artifacts/filter", json={"limit": 100}).json()
    pages = [a["data"] for a in artifacts if a["key"] == f"selection-{second[0]['target']}"]
    assert any("60 reused" in page for page in pages)
    (folder,) = deployed.export_selection(str(second[0]["name"]), ["ids"])
    assert (Path(folder) / "ids.csv").exists()


def test_a_run_that_passes_max_hours_fails_with_a_sentence_and_resumes(
    config: SelectConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAELECT_WORKSPACE", str(tmp_path / "w"))
    monkeypatch.setenv("SAELECT_DATA_FOLDERS", tempfile.gettempdir())
    advanced = {
        "model": {"hookpoint": config.model.hookpoint},
        "compute": {"unit_examples": 1},
    }
    page = {
        "pool": config.pool[0].path,
        "model": config.model.name,
        "sae": config.sae.path,
        "advanced": {**advanced, "max_hours": 0.5},
    }
    remaining: list[float] = []

    def until_the_limit(*arguments: Any) -> list[Any]:
        found = represent_samples(*arguments)
        remaining.append(signal.getitimer(signal.ITIMER_REAL)[0])
        if len(remaining) == 4:  # however fast the machine is, the limit comes in the fourth unit
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            time.sleep(60)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(units, "represent_samples", until_the_limit)
        stopped = deployed.embed_pool(
            **deployed.embed_pool.validate_parameters(page), return_state=True
        )
    assert stopped.is_failed()
    assert "max_hours" in str(stopped.message)
    assert len(remaining) == 4
    assert all(0 < seconds <= 1800 for seconds in remaining)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    page["advanced"] = advanced
    counts = deployed.embed_pool(**deployed.embed_pool.validate_parameters(page))
    assert (counts["computed"], counts["reused"]) == (57, 3)
    assert not list((tmp_path / "w").rglob("*.lease"))


def test_an_unknown_nested_field_is_refused(config: SelectConfig) -> None:
    parameters = {"config": config.model_dump(mode="json")}
    parameters["config"]["ranking"]["wieghts"] = "idf"
    with pytest.raises(Exception, match="wieghts"):
        select_data.validate_parameters(parameters)
