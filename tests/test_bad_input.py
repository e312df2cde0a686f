"""Bad input is refused with file, line, field, value and remedy, before any model is loaded."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flows.stages.sae as sae_stage
import flows.stages.vectors as vectors_stage
from selection.errors import InputError
from storage import files
from tests.conftest import tiny_row, write_jsonl
from tests.jobs import run_job, tiny_config

Case = Callable[[Path], dict[str, Any]]


@pytest.fixture
def refused(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """Runs the job with some keys replaced; returns the message it is refused with."""

    def no_model(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was loaded before the mistake was said")

    monkeypatch.setattr(vectors_stage, "load_activation_model", no_model)
    monkeypatch.setattr(sae_stage, "load_activation_model", no_model)

    def run(root: Path | None = None, **keys: Any) -> str:
        config = tiny_config(
            keys.pop("pool", tiny_pool_path),
            keys.pop("exemplars", tiny_exemplars_path),
            tiny_model_dir,
            keys.pop("sae", tiny_sae_dir),
            **keys,
        )
        with pytest.raises(InputError) as caught:
            run_job(config, root or tmp_path / "w")
        return str(caught.value)

    return run


def text_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def lines(n: int) -> str:
    return "".join(json.dumps(tiny_row(i)) + "\n" for i in range(n))


POOLS: dict[str, tuple[Case, list[str]]] = {
    "missing": (lambda d: {"pool": d / "nowhere.jsonl"}, ["nowhere.jsonl"]),
    "empty": (lambda d: {"pool": text_file(d / "e.jsonl", "")}, ["e.jsonl", "empty"]),
    "broken line": (
        lambda d: {"pool": text_file(d / "b.jsonl", lines(4) + '{"messages": [\n' + lines(2))},
        ["b.jsonl", "line 5", "broken_rows"],
    ),
    "no text": (
        lambda d: {
            "pool": write_jsonl(
                d / "t.jsonl",
                [{**tiny_row(i), "messages": [{"role": "user", "content": ""}]} for i in (0, 1)],
            )
        },
        ["t.jsonl", "no_text"],
    ),
    "no shape": (
        lambda d: {"pool": write_jsonl(d / "s.jsonl", [{"alpha": 1, "beta": "x"}] * 3)},
        ["s.jsonl", "alpha", "beta"],
    ),
    "cut gzip": (
        lambda d: {"pool": cut_gzip(d / "g.jsonl.gz")},
        ["g.jsonl.gz"],
    ),
    "zero exemplars": (lambda d: {"exemplars": text_file(d / "x.jsonl", "")}, ["x.jsonl"]),
    "exemplars without shape": (
        lambda d: {"exemplars": write_jsonl(d / "x.jsonl", [{"gamma": 1}])},
        ["x.jsonl", "gamma"],
    ),
}


def cut_gzip(path: Path) -> Path:
    whole = gzip.compress(lines(50).encode())
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize("name", POOLS)
def test_wrong_files_are_refused_by_name(
    name: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    make, parts = POOLS[name]
    message = refused(**make(tmp_path))
    for part in parts:
        assert part in message


def test_an_unknown_target_lists_the_known_ones(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    targets = write_jsonl(tmp_path / "t.jsonl", [{"target": "sums", "exemplars": [tiny_row(400)]}])
    message = refused(exemplars={"path": str(targets), "targets": ["smus"]})
    assert "smus" in message
    assert "sums" in message


def test_exemplars_without_a_response_need_prompts_on_both_sides(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    questions = [{"messages": tiny_row(i)["messages"][:1]} for i in (400, 404)]
    exemplars = write_jsonl(tmp_path / "questions.jsonl", questions)
    message = refused(exemplars=exemplars)
    for part in ("questions.jsonl", "line 1", "no response", "counted: prompt"):
        assert part in message


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"budget": {"examples": 1000}}, ["`budget.examples`", "1000", "60"]),
        ({"budget": {"examples": 30}, "where": "licence = 'CC-BY-4.0'"}, ["20", "where"]),
        ({"budget": {"fraction": 0.001}}, ["`budget.fraction`", "0.001"]),
        ({"budget": {"tokens": 10**7}}, ["`budget.tokens`", "10000000", "60 examples"]),
        ({"where": "licence = 'none of it'"}, ["`where`", "none of it"]),
        ({"where": "licens = 'MIT'"}, ["licens", "licence"]),
        ({"where": "licence = "}, ["licence = "]),
        ({"model": {"name": "/nowhere/model"}}, ["/nowhere/model"]),
    ],
)
def test_wrong_settings_are_refused_with_what_would_do(
    keys: dict[str, Any], parts: list[str], refused: Callable[..., str]
) -> None:
    message = refused(**keys)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("hookpoint", "part"), [("resid@9", "resid@3"), ("resid@1.5", "1.5"), ("nonsense", "resid@")]
)
def test_a_hookpoint_that_the_model_lacks_is_refused(
    hookpoint: str, part: str, refused: Callable[..., str], tiny_model_dir: Path
) -> None:
    message = refused(model={"name": str(tiny_model_dir), "hookpoint": hookpoint})
    assert hookpoint in message
    assert part in message


def test_an_sae_of_another_width_is_refused(
    refused: Callable[..., str], tiny_sae_dir: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(tiny_sae_dir / "sae.safetensors")
    for name in ("encoder.weight", "W_dec"):
        tensors[name] = np.ascontiguousarray(tensors[name][:, :16])
    tensors["b_dec"] = np.ascontiguousarray(tensors["b_dec"][:16])
    wrong = tmp_path / "sae" / "layers.2"
    wrong.mkdir(parents=True)
    save_file(tensors, wrong / "sae.safetensors")
    settings = json.loads((tiny_sae_dir / "cfg.json").read_text()) | {"d_in": 16}
    (wrong / "cfg.json").write_text(json.dumps(settings))
    message = refused(sae=wrong)
    assert "16" in message
    assert "32" in message


def test_an_sae_of_another_model_and_a_missing_sae_are_refused(
    refused: Callable[..., str], tiny_sae_dir: Path, tmp_path: Path
) -> None:
    import shutil

    other = tmp_path / "sae" / "layers.2"
    shutil.copytree(tiny_sae_dir, other)
    record = {"model_name": "org/other", "model_sha256": "0" * 64, "hookpoint": "layers.2"}
    (other / "saelect.json").write_text(json.dumps(record))
    assert "other weights" in refused(sae=other)
    assert "nowhere" in refused(sae=tmp_path / "nowhere")


def test_an_unwritable_workspace_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    blocked = text_file(tmp_path / "file", "not a folder")
    assert "--workspace" in refused(root=blocked / "w")


def test_a_workspace_of_a_newer_version_is_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "w").mkdir()
    text_file(tmp_path / "w" / "workspace.json", '{"format": 99}')
    message = refused()
    assert "99" in message
    assert "newer" in message


def test_too_little_disk_is_refused_before_the_work(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1000)
    message = refused()
    assert "disk" in message or "free" in message
