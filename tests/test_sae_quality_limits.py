import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.config.model import SaeConfig
from flows.stages.represent.calibration import check_declared_quality
from selection.core.errors import InputError
from selection.sae.coder import make_coder
from selection.sae.metadata import SaeInfo
from selection.sae.quality import SaeQuality, measure, problems

INFO = SaeInfo("saes/x", None, 8, 32, 10)


@pytest.mark.parametrize(
    ("l0", "fvu", "n_problems"),
    [(10, 0.3, 0), (14.9, 0.3, 0), (15.1, 0.3, 1), (4.9, 0.3, 1), (10, 0.95, 1), (30, 1.4, 2)],
)
def test_l0_is_held_to_what_was_declared_and_fvu_to_explaining_something(
    l0: float, fvu: float, n_problems: int
) -> None:
    assert len(problems(INFO, SaeQuality(fvu, l0, 0.0, 4096))) == n_problems
    assert problems(INFO, SaeQuality(float("nan"), 10, 0.0, 4096))
    declared = replace(INFO, k=0, declared_l0=l0)
    assert not problems(declared, SaeQuality(0.3, l0, 0.0, 4096))
    assert not problems(replace(INFO, k=0), SaeQuality(0.3, 999.0, 0.0, 4096))


def test_the_config_decides_between_silence_a_warning_and_a_refusal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    weights = torch.zeros(32, 8), torch.zeros(32), torch.ones(32, 8), torch.zeros(8)
    coder = make_coder(*weights, info=INFO)
    bad = SaeQuality(1.2, 40.0, 0.0, 4096)
    with caplog.at_level(logging.WARNING):
        check_declared_quality(SaeConfig(path="x", check="off"), coder.info, bad)
        check_declared_quality(
            SaeConfig(path="x", check="refuse"), coder.info, SaeQuality(0.2, 10, 0, 9)
        )
    assert not caplog.records
    check_declared_quality(SaeConfig(path="x"), coder.info, bad)
    assert "40.0 latents are active per token, 10 are declared; its recon" in caplog.text
    with pytest.raises(InputError, match=r"`sae`.*1\.20 of the variance.*saes/x.*check: warn"):
        check_declared_quality(SaeConfig(path="x", check="refuse"), coder.info, bad)
    published = replace(coder.info, declared_l0=10.0)
    with pytest.raises(InputError, match=r"40\.0 latents are active per token, 10 are declared"):
        check_declared_quality(SaeConfig(path="x"), published, bad)
    check_declared_quality(SaeConfig(path="x"), published, SaeQuality(1.2, 14.0, 0.0, 4096))
    check_declared_quality(SaeConfig(path="x", check="warn"), published, bad)
    for fvu in (10.0, 5e6, float("inf"), float("nan")):
        with pytest.raises(InputError, match="of the variance unexplained"):
            check_declared_quality(SaeConfig(path="x"), coder.info, SaeQuality(fvu, 10.0, 0, 9))


@pytest.mark.parametrize("fault", ["none", "no subtraction", "transposed decoder", "no norm"])
def test_an_sae_read_by_wrong_conventions_shows(fault: str) -> None:
    """What the check is for: each of these is a way in which libraries have misread SAEs."""
    g = torch.Generator().manual_seed(0)
    d, m = 16, 16
    directions = torch.linalg.qr(torch.randn(d, d, generator=g))[0]
    active = (torch.rand(400, m, generator=g) < 0.15) * (1 + torch.rand(400, m, generator=g))
    center = 3 * torch.randn(d, generator=g)
    x = active @ directions + center
    info = SaeInfo("", None, d, m, 0, "relu", declared_l0=float((active > 0).sum(1).float().mean()))
    decoder = directions
    if fault == "no subtraction":
        info = replace(info, centers=False)
    if fault == "transposed decoder":
        decoder = directions.T
    if fault == "no norm":
        info = replace(info, input_norm="layer_norm")
    coder = make_coder(directions, torch.full((m,), -0.1), decoder, center, info=info)
    found: Any = problems(coder.info, measure(coder, [x]))
    assert bool(found) is (fault != "none")


def test_a_run_checks_its_sae_and_refuses_where_asked(
    tiny_model_dir: Path, tiny_sae_dir: Path, tiny_pool_path: Path, tmp_path: Path
) -> None:
    from flows.config.jobs import VectorJob
    from flows.stages.represent.representer import open_representer
    from storage.files.atomic import read_json
    from storage.files.workspace import open_workspace

    def job(**sae: Any) -> VectorJob:
        return VectorJob.model_validate(
            {
                "pool": str(tiny_pool_path),
                "model": {"name": str(tiny_model_dir), "hookpoint": "resid@2"},
                "sae": {"path": str(tiny_sae_dir), **sae},
            }
        )

    workspace = open_workspace(tmp_path)
    refusing = job(check="refuse")
    with pytest.raises(InputError, match="FVU"):  # a random SAE explains nothing
        _ = open_representer(refusing, workspace, str(tiny_sae_dir)).unit
    assert not list(workspace.units.glob("*.json"))
    unit = open_representer(job(), workspace, str(tiny_sae_dir)).unit
    (kept,) = workspace.units.glob("*.json")
    quality: Any = read_json(kept)["sae_quality"]
    assert quality["fvu"] > 0.9
    assert quality["n_tokens"] >= 4096
    with pytest.raises(InputError, match="FVU"):  # also when it was measured before
        _ = open_representer(refusing, workspace, str(tiny_sae_dir)).unit
    plain = open_representer(job(), workspace, str(tiny_sae_dir)).sae.info
    scaled = open_representer(job(scale="decoder_norm"), workspace, str(tiny_sae_dir)).sae.info
    assert scaled.sae_id != plain.sae_id
    assert unit > 0
