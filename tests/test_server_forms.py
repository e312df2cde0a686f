"""The pages of the deployments: what they ask, what an empty field means, what they refuse."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from flows.config.data import BenchRequest
from flows.config.jobs import SelectConfig
from flows.config.load import resolve
from flows.server.forms import (
    BenchAdvanced,
    BudgetForm,
    SelectAdvanced,
    VectorAdvanced,
    bench_request,
    file_config,
    refuse_outside,
    select_config,
    vector_job,
)
from selection.core.errors import InputError

EMPTY = SelectAdvanced()


def filled(preset: str, advanced: dict[str, Any] | None = None) -> SelectConfig:
    form = SelectAdvanced.model_validate(advanced or {})
    budget = BudgetForm(amount=5)
    return select_config("p.jsonl", "e.jsonl", budget, "demo", "demo", preset, form)


@pytest.mark.parametrize("preset", ["best", "paper"])
def test_the_first_screen_means_what_the_same_config_file_means(preset: str) -> None:
    config = {"pool": "p.jsonl", "exemplars": "e.jsonl", "budget": {"examples": 5}}
    assert filled(preset) == resolve({**config, "preset": preset})


def test_a_page_that_submits_its_empty_fields_changes_nothing() -> None:
    empty = json.loads(EMPTY.model_dump_json())
    assert filled("paper", empty) == filled("paper")
    nested = {"decontamination": {"files": None}, "model_options": {"revision": None}}
    assert filled("paper", nested) == filled("paper")
    assert SelectAdvanced.model_validate({"ranking": {"weights": None}}).model_dump() == {}


def test_one_advanced_field_replaces_only_itself() -> None:
    changed = filled("paper", {"rendering": {"max_length": 99}})
    expected = filled("paper").model_dump()
    expected["rendering"]["max_length"] = 99
    assert changed.model_dump() == expected


def test_every_key_of_a_config_can_be_set_from_the_page() -> None:
    first = {"pool", "exemplars", "budget", "model", "sae", "preset"}
    assert set(SelectConfig.model_fields) - first <= set(SelectAdvanced.model_fields)


def models_of(model: type[BaseModel], seen: set[str]) -> list[dict[str, Any]]:
    schema = model.model_json_schema()
    del seen
    return [schema, *schema.get("$defs", {}).values()]


@pytest.mark.parametrize("form", [SelectAdvanced, VectorAdvanced, BenchAdvanced, BudgetForm])
def test_every_level_of_a_page_refuses_unknown_fields_and_asks_for_no_secret(
    form: type[BaseModel],
) -> None:
    for schema in models_of(form, set()):
        assert schema["additionalProperties"] is False
        for name, field in schema["properties"].items():
            assert field.get("title"), name
            told = field.get("description", "")
            assert told, name
            assert not re.fullmatch(r"Default: \w+\.", told), name
            assert not {"secret", "password", "api_key", "token", "hub_token"} & {name.lower()}
            assert field.get("writeOnly") is None


def test_an_unknown_nested_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="wieghts"):
        SelectAdvanced.model_validate({"ranking": {"wieghts": "idf"}})


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"amount": 40}, {"examples": 40}),
        ({"unit": "fraction", "amount": 0.05}, {"fraction": 0.05}),
        ({"unit": "tokens", "amount": 1e6}, {"tokens": 1_000_000}),
    ],
)
def test_a_budget_has_one_unit(budget: dict[str, Any], expected: dict[str, float]) -> None:
    assert BudgetForm.model_validate(budget).as_mapping() == expected


def test_half_an_example_is_refused_and_there_is_no_default_amount() -> None:
    with pytest.raises(InputError, match="whole"):
        BudgetForm(amount=2.5).as_mapping()
    with pytest.raises(ValidationError):
        BudgetForm.model_validate({})
    with pytest.raises(ValidationError):
        BudgetForm(amount=0)
    budget = BudgetForm(unit="fraction", amount=3)
    with pytest.raises(InputError, match="at most 1"):
        select_config("p", "e", budget, "demo", "demo", "best", EMPTY)


def test_options_of_pool_and_exemplars_reach_the_config() -> None:
    config = filled(
        "best",
        {"pool_options": {"split": "train"}, "exemplar_options": {"targets": ["a"]}, "seed": 3},
    )
    assert config.pool[0].split == "train"
    assert config.exemplars.targets == ["a"]
    assert config.seed == 3


def test_a_stage_page_gives_its_job() -> None:
    advanced = VectorAdvanced.model_validate({"representation": {"token_aggregate": "max"}})
    job = vector_job("p.jsonl", "demo", "demo", advanced)
    assert job.pool[0].path == "p.jsonl"
    assert job.representation.token_aggregate == "max"


def test_a_benchmark_page_gives_its_request() -> None:
    empty = BenchAdvanced.model_validate_json(BenchAdvanced().model_dump_json())
    assert bench_request("p", "t", empty) == BenchRequest(pool="p", targets="t")
    advanced = BenchAdvanced.model_validate({"setting": "full", "methods": ["best", "bm25"]})
    found = bench_request("p", "t", advanced)
    assert (found.setting, found.methods) == ("full", ("best", "bm25"))


def test_untouched_lists_of_a_page_are_not_lists_of_nothing() -> None:
    form = SelectAdvanced.model_validate({"quotas": None, "decontamination": {"files": None}})
    assert form.model_dump() == {}


def test_a_preset_brings_no_columns_of_its_own_pool() -> None:
    assert filled("demo").pool[0].columns == {}
    config = select_config(
        "demo:pool.jsonl", "e", BudgetForm(amount=5), "demo", "demo", "best", EMPTY
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
            EMPTY,
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
