"""Bad input is refused with file, line, field, value and remedy, before any model is loaded."""

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flows.stages.represent.representer as vectors_stage
import flows.stages.represent.sae as sae_stage
from flows.stages.prepare.render import hookpoints_of, open_model_input
from selection.core.errors import InputError
from storage.files import atomic
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl

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
    other = tmp_path / "sae" / "layers.2"
    shutil.copytree(tiny_sae_dir, other)
    record = {"model_name": "org/other", "model_sha256": "0" * 64, "hookpoint": "layers.2"}
    (other / "saelect.json").write_text(json.dumps(record))
    assert "other weights" in refused(sae=other)
    assert "nowhere" in refused(sae=tmp_path / "nowhere")


SAES = Path(__file__).parent / "saes"


@pytest.mark.parametrize("name", ["saelens_topk", "gemma_scope", "dictionary_JumpRelu"])
def test_an_sae_of_another_model_is_refused_as_such_where_no_hookpoint_is_given(
    name: str, refused: Callable[..., str]
) -> None:
    message = refused(sae=SAES / name, model={"name": "demo", "hookpoint": ""})
    assert message.startswith("`sae`: the SAE reads activations of width 8, ")
    assert f"(found: '{SAES / name}" in message
    assert "These would fit: " in message
    assert str(Path("demo", "sae", "layers.2")) + " (width 320" in message


def test_a_place_that_the_model_lacks_is_a_problem_of_the_sae_that_names_it(
    refused: Callable[..., str], tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    deep = tmp_path / "sae" / "layers.4"
    shutil.copytree(tiny_sae_dir, deep)
    message = refused(sae=deep, model={"name": str(tiny_model_dir), "hookpoint": ""})
    assert message.startswith(
        f"`sae`: the SAE reads layers.4 (resid@4), {tiny_model_dir} has 4 blocks (found: '{deep}')"
    )


@pytest.mark.parametrize(("sae", "problem"), [(SAES / "saelens_topk", "width 8"), (None, "blocks")])
def test_another_sae_that_a_space_names_is_held_against_the_model(
    sae: Path | None,
    problem: str,
    refused: Callable[..., str],
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path: Path,
) -> None:
    if sae is None:
        sae = tmp_path / "sae" / "layers.9"
        shutil.copytree(tiny_sae_dir, sae)
    spaces = ["sae", {"kind": "sae", "sae": str(sae)}]
    config = tiny_config(
        tmp_path, tmp_path, tiny_model_dir, tiny_sae_dir, representation={"spaces": spaces}
    )
    with pytest.raises(InputError) as caught:
        hookpoints_of(config, open_model_input(config))
    assert str(caught.value).startswith("`representation.spaces[].sae`: the SAE reads ")
    message = refused(representation={"spaces": spaces})
    for text in (message, str(caught.value)):
        assert problem in text
        assert f"(found: '{sae}')" in text
        assert "hookpoint`" not in text


def test_an_sae_is_read_where_it_was_trained_however_its_library_spells_that(
    tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_sae_dir, tmp_path / "h.1")
    model = {"name": str(tiny_model_dir), "hookpoint": ""}
    config = tiny_config(tmp_path, tmp_path, tiny_model_dir, tmp_path / "h.1", model=model)
    assert str(open_model_input(config).hookpoint) == "resid@1"


def test_where_only_the_hookpoint_differs_the_saes_own_is_offered(
    refused: Callable[..., str],
) -> None:
    message = refused(sae=Path("demo"), model={"name": "demo", "hookpoint": "resid@1"})
    assert "the SAE reads layers.2 (resid@2), the hookpoint is resid@1" in message
    assert message.endswith(". Leave `model.hookpoint` out, or write `resid@2`.")


def test_a_folder_of_many_saes_lists_what_fits_or_what_is_there(
    refused: Callable[..., str], tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    for name in ("a/layers.1", "b/layers.2", "c/layers.7"):
        shutil.copytree(tiny_sae_dir, tmp_path / "saes" / name)
    several = f"`sae`: there are 3 SAEs in this folder; name one (found: '{tmp_path / 'saes'}'). "
    placeless = {"name": str(tiny_model_dir), "hookpoint": ""}
    message = refused(sae=tmp_path / "saes", model=placeless)
    assert message.startswith(several + "These would fit: ")
    assert message.count("(width 32") == 2
    assert "layers.7" not in message
    message = refused(sae=tmp_path / "saes")
    assert message.startswith(several + "These are there: ")
    message = refused(sae=SAES, model=placeless)
    assert "None of them fits" in message
    assert message.count("(width 8") == 10
    assert re.search(r"; and \d+ more\.$", message)


def test_an_empty_path_of_an_sae_is_no_folder() -> None:
    with pytest.raises(InputError, match=r"`sae\.path`: String should have at least 1 character"):
        tiny_config(Path(), Path(), Path(), {"path": ""})


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
    monkeypatch.setattr(atomic, "free_bytes", lambda folder: 1000)
    message = refused()
    assert "disk" in message or "free" in message
