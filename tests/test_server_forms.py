"""The pages of the deployments: what they ask, what an empty field means, what they refuse."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import ValidationError

from flows.config.data import BenchRequest
from flows.config.jobs import SelectConfig
from flows.config.load import resolve
from flows.server import forms
from flows.server.forms import (
    BudgetForm,
    bench_request,
    file_config,
    pool_job,
    refuse_outside,
    select_config,
    training_job,
    vector_job,
)
from selection.core.errors import InputError
from selection.sae.training.settings import TrainSettings

FORMS = (select_config, vector_job, pool_job, training_job, bench_request)
FIRST = {"pool": "p", "exemplars": "e", "budget": {"amount": 5}}


def filled(preset: Any, advanced: dict[str, Any] | None = None) -> SelectConfig:
    budget = BudgetForm(amount=5)
    return select_config("p.jsonl", "e.jsonl", budget, "demo", "demo", preset, advanced)


def folded(form: Callable[..., Any]) -> dict[str, Any]:
    """The section of the folded fields in the schema that Prefect makes of a form."""
    field = parameter_schema(form).model_dump()["properties"]["advanced"]
    section: dict[str, Any] = field["anyOf"][0]
    return section


def sections(schema: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of named fields in a schema."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("properties"), Mapping):
            yield dict(schema)
        for inner in schema.values():
            yield from sections(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from sections(inner)


def emptied(section: Mapping[str, Any]) -> dict[str, Any]:
    """What a page submits whose sections are all open and whose fields are all empty."""
    empty = {}
    for name, field in section["properties"].items():
        inner = [kind for kind in field.get("anyOf", ()) if "properties" in kind]
        empty[name] = emptied(inner[0]) if inner else None
    return empty


@pytest.mark.parametrize("preset", ["best", "paper"])
def test_the_first_screen_means_what_the_same_config_file_means(preset: str) -> None:
    config = {"pool": "p.jsonl", "exemplars": "e.jsonl", "budget": {"examples": 5}}
    assert filled(preset) == resolve({**config, "preset": preset})


def test_a_page_that_submits_its_empty_fields_changes_nothing() -> None:
    empty = emptied(folded(select_config))
    assert empty["sae"]["train"]["widths"] is None
    assert filled("paper", empty) == filled("paper")


def test_one_advanced_field_replaces_only_itself() -> None:
    changed = filled("paper", {"rendering": {"max_length": 99}})
    expected = filled("paper").model_dump()
    expected["rendering"]["max_length"] = 99
    assert changed.model_dump() == expected


def test_every_key_of_a_config_can_be_set_from_the_page() -> None:
    assert set(SelectConfig.model_fields) - {"preset"} <= set(folded(select_config)["properties"])
    assert "path" not in folded(select_config)["properties"]["pool"]["anyOf"][0]["properties"]


@pytest.mark.parametrize("form", FORMS)
def test_every_level_of_a_page_refuses_unknown_fields_and_asks_for_no_secret(
    form: Callable[..., Any],
) -> None:
    schema = parameter_schema(form).model_dump()
    # Prefect closes the first level itself; a range of the budget has no title.
    for section in [each for each in sections(schema) if "title" in each][1:]:
        assert section.get("additionalProperties") is False, section.get("title")
        for name, field in section["properties"].items():
            assert field.get("title"), name
            description = field.get("description", "")
            assert description, name
            assert not re.fullmatch(r"Default: \w+\.", description), name
            assert not {"secret", "password", "api_key", "token", "hub_token"} & {name.lower()}
            assert field.get("writeOnly") is None


@pytest.mark.parametrize(
    ("advanced", "is_right"),
    [
        ({"ranking": {"weights": "idf"}}, True),
        ({"ranking": {"wieghts": "idf"}}, False),
        ({"ranking": {"weights": "no such choice"}}, False),
        ({"sae": {"train": {"k": 0}}}, False),
        ({"model": {"hookpoint": "resid@<block>"}, "max_hours": 2}, True),
        ({"max_hours": -1}, False),
    ],
)
def test_the_schema_refuses_what_the_config_would(advanced: dict[str, Any], is_right: bool) -> None:
    schema = parameter_schema(select_config).model_dump()
    errors = validate({**FIRST, "advanced": advanced}, schema, raise_on_error=False)
    assert (errors == []) is is_right


def test_an_unknown_nested_field_is_refused_by_the_config_too() -> None:
    with pytest.raises(InputError, match="weights"):
        filled("best", {"ranking": {"wieghts": "idf"}})


def test_descriptions_name_the_value_of_the_preset() -> None:
    ranking = folded(select_config)["properties"]["ranking"]["anyOf"][0]["properties"]
    best = resolve({"pool": "p", "exemplars": "e", "budget": {"examples": 5}, "preset": "best"})
    assert ranking["weights"]["description"].endswith(f"Default: {best.ranking.weights}.")


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"amount": 40}, (40, None, None)),
        ({"unit": "fraction", "amount": 0.05}, (None, 0.05, None)),
        ({"unit": "tokens", "amount": 1e6}, (None, None, 1_000_000)),
    ],
)
def test_a_budget_has_one_unit(budget: dict[str, Any], expected: tuple[float | None, ...]) -> None:
    form = BudgetForm.model_validate(budget)
    given = select_config("p", "e", form, "demo", "demo", "best", None).budget
    assert (given.examples, given.fraction, given.tokens) == expected


def test_half_an_example_is_refused_and_there_is_no_default_amount() -> None:
    with pytest.raises(InputError, match=r"budget\.examples"):
        select_config("p", "e", BudgetForm(amount=2.5), "demo", "demo", "best", None)
    with pytest.raises(ValidationError):
        BudgetForm.model_validate({})
    with pytest.raises(ValidationError):
        BudgetForm(amount=0)
    budget = BudgetForm(unit="fraction", amount=3)
    with pytest.raises(InputError, match="at most 1"):
        select_config("p", "e", budget, "demo", "demo", "best", None)


def test_options_of_pool_and_exemplars_reach_the_config() -> None:
    config = filled(
        "best",
        {"pool": {"split": "train"}, "exemplars": {"targets": ["a"]}, "seed": 3},
    )
    assert config.pool[0].split == "train"
    assert config.exemplars.targets == ["a"]
    assert config.seed == 3


def test_a_stage_page_gives_its_job() -> None:
    job = vector_job("p.jsonl", "demo", "demo", {"representation": {"token_aggregate": "max"}})
    assert job.pool[0].path == "p.jsonl"
    assert job.representation.token_aggregate == "max"


def test_a_training_page_trains() -> None:
    job = training_job(
        "p.jsonl", "demo", "mlp@1", {"k": 8, "widths": None}, {"model": {"dtype": "float32"}}
    )
    assert job.sae.train is not None
    assert (job.sae.path, job.sae.train.k, job.model.dtype) == (None, 8, "float32")
    assert job.model.hookpoint == "mlp@1"
    untouched = training_job("p.jsonl", "demo", "mlp@1", {}, None).sae
    assert (untouched.path, untouched.train) == (None, TrainSettings())


def test_tokens_of_a_budget_are_counted_as_the_page_says() -> None:
    budget = filled("best", {"budget": {"max_length": 64}}).budget
    assert (budget.examples, budget.max_length) == (5, 64)


def test_a_benchmark_page_gives_its_request() -> None:
    empty = emptied(folded(bench_request))
    assert bench_request("p", "t", empty) == BenchRequest(pool="p", targets="t")
    request = bench_request("p", "t", {"setting": "full", "methods": ["best", "bm25"]})
    assert (request.setting, request.methods) == ("full", ("best", "bm25"))
    with pytest.raises(InputError, match="setting"):
        bench_request("p", "t", {"setting": "half"})


def test_untouched_fields_of_a_page_are_left_out() -> None:
    page = {"quotas": None, "decontamination": {"files": None}, "ranking": {"weights": None}}
    assert forms.filled(page) == {}


def test_a_preset_brings_no_columns_and_no_name_of_its_own_pool() -> None:
    assert filled("demo").pool[0].columns == {}
    assert filled("demo").name is None
    config = select_config(
        "demo:pool.jsonl", "e", BudgetForm(amount=5), "demo", "demo", "best", None
    )
    assert config.pool[0].columns["source"] == "source"


@pytest.mark.parametrize(
    "fields",
    [
        {"pool": "/etc/passwd"},
        {"exemplars": "../../../../etc/shadow"},
        {"model": "/etc"},
        {"pool": "file:///etc/*.conf"},
        {"sae": "~/../../etc/passwd"},
    ],
)
def test_files_outside_the_allowed_folders_are_refused_unread(
    fields: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    form = {"pool": "p", "exemplars": "e", "model": "demo", "sae": "demo", **fields}
    with pytest.raises(InputError, match="outside of the folders"):
        select_config(
            form["pool"],
            form["exemplars"],
            BudgetForm(amount=5),
            form["model"],
            form["sae"],
            "best",
            None,
        )


def test_folders_of_data_can_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "pool.jsonl").write_text("{}")
    (tmp_path / "here" / "link").symlink_to(tmp_path / "pool.jsonl")
    for path in (tmp_path / "pool.jsonl", "../pool.jsonl", "link"):
        with pytest.raises(InputError, match="--data"):
            refuse_outside(str(path))
    monkeypatch.setenv("SAELECT_DATA_FOLDERS", str(tmp_path))
    refuse_outside(str(tmp_path / "pool.jsonl"))
    refuse_outside("tulu/a-dataset-of-a-hub")


def test_a_config_file_that_is_none_shows_nothing_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.yaml").write_text("hunter2")
    with pytest.raises(InputError) as caught:
        file_config("key.yaml", {})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InputError, match="outside"):
        file_config("/etc/passwd", {})
