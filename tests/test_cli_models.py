import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.sae_loaders import MEASURED, PAGE, by_family, measured, page
from flows.cli.reading.models import (
    NO_SAE,
    demo_combination,
    print_card,
    print_loaders,
    print_models,
)
from flows.config.jobs import VectorJob
from flows.stages.prepare.render import open_model_input
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.sae.compatibility import check_fits
from selection.sae.formats.find import FAMILIES
from selection.sae.metadata import SaeInfo
from selection.sae.published import combinations, matching, recommended

DEMO = Path(__file__).parent.parent / "flows" / "demo"


@dataclass
class Model:
    name: str = "unsloth/gemma-3-1b-it"
    weights_sha256: str = "aa"
    d_model: int = 1152
    d_heads: int | None = None
    d_mlp: int | None = None
    n_layers: int = 26


HOOKPOINT = Hookpoint("resid", 17)


def test_the_list_is_whole_and_says_what_was_not_tried() -> None:
    families = {family.name for family in FAMILIES}
    for c in combinations():
        assert c.family in families
        assert 0 <= c.block < c.n_layers
        assert c.how_tested == "by format only"  # none of them was downloaded here
        assert c.kind in ("base", "instruct")
        assert 1 < c.memory_gb < 80
    assert [c.memory_gb for c in combinations()] == sorted(c.memory_gb for c in combinations())
    demo = demo_combination()
    assert demo.how_tested == "tested here"
    config = json.loads((DEMO / "model" / "config.json").read_text())
    assert (demo.d_model, demo.n_layers) == (config["hidden_size"], config["num_hidden_layers"])


def test_memory_counts_the_blocks_up_to_the_place_and_the_sae_twice() -> None:
    c = replace(combinations()[0], n_params=11_000_000_000, embedding_params=1_000_000_000,
                n_layers=10, block=4, latents=100_000, d_model=5_000)  # fmt: skip
    model, sae = (1e9 + 5e9) * 2 / 1e9, 2 * 100_000 * 5_000 * 4 / 1e9
    assert c.memory_gb == pytest.approx(model + sae + 1.5)


def test_the_recommendation_is_the_largest_instruct_model_that_fits() -> None:
    for size in (4, 8, 16, 24, 80):
        best = recommended(size, combinations())
        fitting = [c for c in combinations() if c.kind == "instruct" and c.memory_gb <= 0.8 * size]
        assert (best is None) == (not fitting)
        assert best is None or all(c.n_params <= best.n_params for c in fitting)
    assert recommended(0.5, combinations()) is None


def test_a_model_is_found_by_the_end_of_its_name() -> None:
    assert {c.model for c in matching("my/copy/gemma-3-4B-it/", combinations())} == {
        "google/gemma-3-4b-it"
    }
    assert len(matching("gemma", combinations())) > 3
    assert matching("nobody/nothing", combinations()) == []


def test_the_command_shows_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    print_models(None, None)
    shown = capsys.readouterr().out
    assert all(c.sae in shown and c.model in shown for c in combinations())
    assert "by format only" in shown
    assert "no GPU  demo" in shown
    assert "saelect train-sae" in shown
    print_models("Qwen2.5-7B", None)
    assert "gemma" not in capsys.readouterr().out
    print_models("nobody/nothing", 24)
    shown = capsys.readouterr().out
    assert "No published SAE is known here for 'nobody/nothing'" in shown
    assert "24 GB" in shown


def first_table(shown: str) -> list[str]:
    """Models of the printed table."""
    return [line.split()[0] for line in shown.split("\n\n")[0].splitlines()[1:]]


@pytest.mark.parametrize("size", [-3, float("nan")])
def test_a_size_is_checked_before_anything_is_shown(
    size: float, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="more memory"):
        print_models(None, size)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", [2, 4, 8, 24])
def test_only_what_fits_is_shown(size: float, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [demo_combination(), *combinations()]
    fitting = [c for c in rows if c.memory_gb <= size]
    print_models(None, size)
    shown = capsys.readouterr().out
    assert first_table(shown) == [c.model for c in fitting]
    left = len(rows) - len(fitting)
    assert (f"Not shown: {left} that do not fit {size} GB." in shown) == (left > 0)


def test_recommended_is_one_of_those_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_models("llama", 4)
    shown = capsys.readouterr().out
    assert "None of them fits 4 GB: 2 known, the smallest needs 11.0 GB." in shown
    assert "gemma" not in shown
    assert "Recommended" not in shown
    print_models("llama", 12)  # the base model alone
    shown = capsys.readouterr().out
    assert first_table(shown) == ["meta-llama/Llama-3.1-8B"]
    assert "Not shown: 1 that does not fit 12 GB." in shown
    assert "12 GB  no instruct model of these" in shown
    print_models("llama", 24)
    shown = capsys.readouterr().out
    assert "24 GB  meta-llama/Llama-3.1-8B-Instruct" in shown
    assert "Not shown" not in shown
    print_models("llama", 0)
    shown = capsys.readouterr().out
    assert len(first_table(shown)) == 2
    assert "no GPU  none of these" in shown


@pytest.mark.parametrize("size", [None, 24])
def test_what_to_do_without_a_published_sae_is_said_once(
    size: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    print_models("nobody/nothing", size)
    assert capsys.readouterr().out.count(NO_SAE) == 1


def test_the_training_that_is_named_is_one_that_runs(tiny_model_dir: Path) -> None:
    parts = re.findall(r"`((?:model|sae): \{.*?\})`", NO_SAE)
    config: dict[str, Any] = {"pool": "pool.jsonl"}
    for part in parts:
        config |= yaml.safe_load(part)
    job = VectorJob.model_validate(
        config | {"model": config["model"] | {"name": str(tiny_model_dir)}}
    )
    assert job.sae.train is not None
    assert open_model_input(job).hookpoint.site == "resid"


def test_the_card_of_an_sae_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_card(str(DEMO / "sae"))
    shown = capsys.readouterr().out
    print_card("demo")
    assert capsys.readouterr().out == shown
    assert "subtracted before the encoder" in shown
    assert "the 32 largest" in shown
    assert "layers.2 (resid@2)" in shown


def test_the_matrix_and_its_page_are_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    kept, found = json.loads(MEASURED.read_text()), by_family(measured())
    assert kept.keys() == found.keys()
    for family, largest in found.items():  # another processor rounds otherwise
        assert largest <= max(4 * kept[family], 2e-5)
    assert PAGE.read_text() == page(kept)
    print_loaders()
    shown = capsys.readouterr().out
    assert all(family.title in shown and family.refuses in shown for family in FAMILIES)


def test_a_foreign_sae_is_refused_with_those_that_fit() -> None:
    sae = SaeInfo("x", "layers.5", 1152, 16384, 0, model_name="google/gemma-3-1b-it")
    with pytest.raises(InputError, match=r"resid@5.*resid@17.*google/gemma-scope-2-1b-it/resid"):
        check_fits(sae, Model(), HOOKPOINT)
    with pytest.raises(InputError, match="trained on org/other") as error:
        check_fits(replace(sae, model_name="org/other"), Model(name="nobody/x"), HOOKPOINT)
    assert "Published" not in str(error.value)


def test_the_command_is_light() -> None:
    code = (
        "import sys; from flows.cli.reading.models import print_models, print_loaders;"
        "print_models(None, None); print_loaders();"
        "assert not {'torch', 'prefect', 'transformers', 'duckdb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
