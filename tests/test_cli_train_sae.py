"""`sae: {train: ...}` from config to files, report and command line, on the tiny model."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli.saes import sparkline, summary, train_from_config
from flows.config.load import load_vector_job
from selection.core.errors import InputError
from selection.sae.formats.load import load_sae
from selection.sae.training.settings import TrainSettings
from storage.queries.lookup import find_selection
from storage.report.charts import training_curve
from tests.run_stages import run_job, tiny_config

TRAIN: dict[str, Any] = {"num_latents": 64, "k": 4, "tokens": 8192, "batch_tokens": 256,
                         "learning_rate": 0.01}  # fmt: skip


@pytest.mark.parametrize("architecture", ["topk", "matryoshka", "matching_pursuit"])
def test_a_run_trains_saves_in_both_formats_and_reports_the_curve(
    architecture: str,
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
) -> None:
    sae = {"train": {**TRAIN, "architecture": architecture}}
    config = tiny_config(tiny_pool_path, tiny_exemplars_path, tiny_model_dir, sae, index=False)
    workspace, results = run_job(config, tmp_path)
    (home,) = workspace.saes.iterdir()
    coder = load_sae(home / "layers.2")
    assert coder.info.family == ("sparsify" if architecture == "topk" else "saelens")
    assert coder.info.hookpoint == "layers.2"
    assert coder.info.expected_l0 == pytest.approx(4, abs=0.5)
    if architecture == "topk":
        copy = load_sae(home / "saelens" / "layers.2")
        assert (copy.info.family, copy.info.sha256) == ("saelens", coder.info.sha256)
    record: Any = coder.info.record
    assert record["training"]["fvu"] < record["training"]["curve"][0][1]
    assert record["training"]["input_scale"] > 0
    assert record["quality"]["n_tokens"] >= 4096
    shown = "\n".join(summary(home / "layers.2"))
    assert f"FVU {record['quality']['fvu']:.3f}, L0" in shown
    found = find_selection(workspace, str(results[0]["name"]))
    page = (workspace.reports / f"{found.name}.html").read_text()
    assert "Training of the" in page
    assert f"{record['training']['curve'][-1][1]:.3f} at the end" in page


def test_a_run_with_a_given_sae_shows_no_training(
    tiny_pool_path: Path, tiny_exemplars_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    config = tiny_config(tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir,
                         index=False)  # fmt: skip
    workspace, results = run_job(config, tmp_path)
    page = (workspace.reports / f"{results[0]['name']}.html").read_text()
    assert "Training of the" not in page
    assert "SAE on calibration texts" in page


def test_the_chart_is_the_curve() -> None:
    points = [[1, 0.8, 4, 0.0, 4], [50, 0.4, 4, 0.0, 4], [100, 0.2, 4.0, 0.25, 4]]
    found = training_curve({"sae_training": {"curve": points}})
    assert found is not None
    assert found.line == "M1.00,0.00 L50.00,50.00 L100.00,75.00"
    assert (found.first, found.last, found.dead, found.n_steps) == ("0.80", "0.200", "25.0%", 100)
    assert training_curve({"sae_training": {"curve": points[:1]}}) is None
    assert training_curve({"rows": 3}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 100}, "more than num_latents"),
        ({"k_start": 2}, "k_start is 2, expected 4 to 64"),
        ({"widths": [8, 64]}, "are for matryoshka"),
        ({"architecture": "matryoshka", "widths": [8, 32]}, "end with num_latents"),
        ({"architecture": "matryoshka", "widths": [64, 8, 64]}, "must rise"),
    ],
)
def test_settings_that_contradict_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings.model_validate({**TRAIN, **change})


def test_a_config_without_exemplars_and_budget_serves(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump({"pool": "pool.jsonl", "sae": {"train": TRAIN}}))
    job = load_vector_job(file, {"sae.train.k": "8"})
    assert job.sae.train is not None
    assert job.sae.train.k == 8
    both = {"pool": "p.jsonl", "sae": {"train": TRAIN}, "exemplars": "e", "budget": {"examples": 3}}
    file.write_text(yaml.safe_dump(both))
    assert load_vector_job(file).pool[0].path == "p.jsonl"
    file.write_text(yaml.safe_dump({"pool": "p", "sae": {"train": {**TRAIN, "kk": 3}}}))
    with pytest.raises(InputError, match=r"train\.yaml.*no such key"):
        load_vector_job(file)
    file.write_text(yaml.safe_dump({"pool": "p", "sae": "demo"}))
    with pytest.raises(InputError, match=r"`sae\.train`: there is nothing to train"):
        train_from_config(str(file), tmp_path / "w", {})


def test_a_sparkline_has_a_bounded_length_and_shows_the_peak() -> None:
    assert sparkline([8, 4, 0]) == "█▅▁"
    assert len(sparkline([1.0] * 500)) <= 60
    assert sparkline([]) == ""
