"""Explanations that others wrote: what is read of delphi and Neuronpedia, refused, kept, shown."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.sae.interpret.explanations import (
    MOST_CHARACTERS,
    Dictionary,
    Explanation,
    balanced_accuracy,
    read_explanations,
)
from selection.sae.interpret.latents_file import add_explanations, explanation_words
from storage.audit.explain import explain
from storage.catalog.commit import commit
from storage.files.workspace import EXPLANATIONS, Workspace, open_workspace
from storage.report.page import write_report
from tests.catalog_fixture import make_tables

SAE = Dictionary([Hookpoint("resid", 12)], 16_384)


def judged(*pairs: tuple[bool, object]) -> list[dict[str, object]]:
    return [
        {"activating": active, "prediction": guess, "str_tokens": []} for active, guess in pairs
    ]


def delphi(root: Path, texts: dict[str, object], scores: dict[str, object] | None = None) -> Path:
    """A results folder. texts: file name -> explanation; scores: scorer/file name -> judgements."""
    for folder, files in (("explanations", texts), ("scores", scores or {})):
        for name, value in files.items():
            file = root / folder / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return root


def line(index: object, description: object, **more: object) -> dict[str, object]:
    where = {"modelId": "gemma-2-2b", "layer": "12-gemmascope-res-16k", "index": index}
    return {**where, "description": description, "explanationModelName": "gpt-4o-mini", **more}


def neuronpedia(file: Path, *rows: Any) -> Path:
    text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return file


def test_balanced_accuracy_is_the_mean_of_both_shares() -> None:
    mixed = judged((True, True), (True, 0), (True, 1), (True, None), (False, False), (False, -1))
    assert balanced_accuracy(mixed) == pytest.approx((2 / 3 + 1) / 2)
    assert balanced_accuracy(judged((False, 1), (True, False))) == 0
    for none in (judged((True, True)), [], {"a": 1}, [3], None):
        assert balanced_accuracy(none) is None


def test_delphi_texts_with_the_score_of_detection_before_that_of_fuzzing(tmp_path: Path) -> None:
    right, half = judged((True, True), (False, False)), judged((True, True), (False, True))
    root = delphi(
        tmp_path,
        {"layers.12_latent7": "dates  in\nnews", "layers.12_latent8": "b", "layers.12_latent9": " ",
         "layers.3_latent7": "elsewhere", "notes": "x"},
        {"fuzz/layers.12_latent7": right, "detection/layers.12_latent7": half,
         "fuzz/layers.12_latent8": right, "surprisal/layers.12_latent8": [],
         "detection/layers.12_latent8": judged((True, True)), "fuzz/layers.3_latent7": right},
    )  # fmt: skip
    for path in (root, root / "explanations"):
        read = read_explanations(path, SAE)
        assert read.of_latent == {
            7: Explanation("dates in news", None, "detection", 0.5),
            8: Explanation("b", None, "fuzz", 1.0),
        }
        assert read.left_out == {
            "explanations without text": 1,
            "explanations at other hookpoints": 1,
            "files without a latent in their names": 1,
            "scores of surprisal": 1,
            "scores of detection without judgements of both kinds": 1,
            "scores without an explanation here": 1,
        }
    assert read.of_latent[7].words("delphi") == '"dates in news" (delphi, detection 0.50)'


def test_a_modules_output_and_the_saes_own_name_count_as_the_hookpoint(tmp_path: Path) -> None:
    root = delphi(tmp_path, {"model.layers.4.mlp_latent3": "a"})
    for site in ("mlp", "mlp_module"):
        assert read_explanations(root, Dictionary([Hookpoint(site, 4)], 4)).of_latent
    both = Dictionary([Hookpoint("mlp_in", 4), Hookpoint("mlp_module", 4)], 4)
    assert read_explanations(root, both).of_latent
    with pytest.raises(InputError, match=r"`module`: the SAE reads resid@4 .*layers.4.mlp"):
        read_explanations(root, Dictionary([Hookpoint("resid", 4)], 4))


def test_neuronpedia_keeps_the_best_scored_of_several(tmp_path: Path) -> None:
    def scored(name: str, value: object) -> dict[str, object]:
        return {"explanationScoreTypeName": name, "value": value}

    both = [scored("eleuther_fuzz", 0.4), scored("eleuther_recall", 0.8), scored("x", "high")]
    worse = {"description": "worse", "scores": [scored("eleuther_recall", 0.7)]}
    nested = {**line("5", "x"), "explanations": [worse, {"description": "a", "scores": both}]}
    folder = tmp_path / "explanations"
    neuronpedia(folder / "batch-0.jsonl.gz", line("0", "first"), "", nested)
    neuronpedia(folder / "batch-1.jsonl", line(0, "second"), line("1", ""), line("2", None))
    read = read_explanations(tmp_path, SAE)
    assert read.of_latent == {
        0: Explanation("first", "gpt-4o-mini"),
        5: Explanation("a", None, "eleuther_recall", 0.8),
    }
    others = "other explanations of the same latents"
    assert read.left_out == {others: 2, "explanations without text": 2}
    assert read.of_latent[0].words("neuronpedia") == '"first" (neuronpedia, gpt-4o-mini)'


@pytest.mark.parametrize(
    ("model", "layer", "hookpoint", "width", "fits"),
    [
        ("gemma-2-2b", "12-gemmascope-res-16k", "resid@12", 16_384, True),
        ("gemma-2-2b", "12-gemmascope-res-16k", "resid@11", 16_384, False),
        ("gemma-2-2b", "12-gemmascope-res-16k", "mlp@12", 16_384, False),
        ("gemma-2-2b", "12-gemmascope-res-65k", "resid@12", 16_384, False),
        ("gemma-2-2b", "12-gemmascope-transcoder-16k", "mlp_norm@12", 16_384, True),
        ("gemma-2-2b", "12-gemmascope-att-16k", "heads@12", 16_384, True),
        ("gpt2-small", "6-res-jb", "resid@5", 24_576, True),  # hook_resid_pre
        ("gpt2-small", "6-res-jb", "resid@6", 24_576, False),
        ("gpt2-small", "6-res_post_32k-oai", "resid@6", 32_768, True),
        ("gpt2-small", "gpt2-small", "resid@6", 32_768, False),
    ],
)
def test_a_layer_of_neuronpedia_names_block_site_and_width(
    model: str, layer: str, hookpoint: str, width: int, fits: bool, tmp_path: Path
) -> None:
    site, block = hookpoint.split("@")
    sae = Dictionary([Hookpoint(site, int(block))], width)
    file = neuronpedia(tmp_path / "a.jsonl", {**line("0", "a"), "modelId": model, "layer": layer})
    if fits:
        assert read_explanations(file, sae).of_latent
    else:
        with pytest.raises(InputError, match=rf"a.jsonl, line 1: `layer`.*{model}/{layer}"):
            read_explanations(file, sae)


def test_what_is_broken_is_named_with_file_line_field_and_value(tmp_path: Path) -> None:
    good = line("0", "a")
    for rows, message in (
        ((good, "", '{"index": '), r"a.jsonl, line 3: this is not JSON .*index.*again"),
        ((good, "[1]"), r"line 2: a line is a JSON object \(found: \[1\]\)"),
        ((good, line("16384", "b")), r"line 2: `index`: the SAE has no such latent .*16384"),
        ((good, line(-1, "b")), r"line 2: `index`.*-1"),
        ((good, line(True, "b")), r"line 2: `index`.*True"),
        ((good, line("٣", "b")), r"line 2: `index`"),
        ((good, {**good, "layer": "13-gemmascope-res-16k"}), r"line 2: `layer`.*13-gemma"),
        ((good, line("1", {"a": 1})), r"line 2: a description is a text"),
        ((good, {**good, "explanations": ["a"]}), r"line 2: a description is a text"),
        ((line("0", ""),), r"no explanations are here: 1 explanations without text"),
        ((), r"no explanations are here\b.*Name a results folder"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_explanations(neuronpedia(tmp_path / "a.jsonl", *rows), SAE)
    short = neuronpedia(tmp_path / "b.jsonl.gz", good)
    short.write_bytes(short.read_bytes()[:-12])
    with pytest.raises(InputError, match="cannot be read"):
        read_explanations(short, SAE)
    with pytest.raises(InputError, match="no explanations are here"):
        read_explanations(tmp_path / "missing", SAE)
    for number, (name, text) in enumerate((
        ("layers.12_latent16384", "a"), ("layers.12_latentx", "a"), ("layers.12_latent1", b"{"),
        ("layers.12_latent1", ["a"]),
    )):  # fmt: skip
        with pytest.raises(InputError, match=name):
            read_explanations(delphi(tmp_path / str(number), {name: text}), SAE)


def test_texts_are_one_bounded_line_without_secrets(tmp_path: Path) -> None:
    rows = ("see https://me:pass@host/x\u2028now \ud800", "x" * 5000)
    file = neuronpedia(tmp_path / "a.jsonl", *(line(n, text) for n, text in enumerate(rows)))
    read = read_explanations(file, SAE).of_latent
    assert read[0].text == "see https://***@host/x now ?"
    assert read[1].text == "x" * (MOST_CHARACTERS - 1) + "…"


def test_importing_again_replaces_that_source_alone(tmp_path: Path) -> None:
    file = tmp_path / EXPLANATIONS

    def add(path: Path) -> bytes:
        add_explanations(file, file, read_explanations(path, SAE), "s" * 64)
        return file.read_bytes()

    first = neuronpedia(tmp_path / "a.jsonl", line("1", "old"), line("2", "two"))
    add(first)
    kept = add(delphi(tmp_path / "d", {"layers.12_latent1": "one"}))
    assert add(first) == kept
    assert explanation_words(file) == {
        1: ['"one" (delphi)', '"old" (neuronpedia, gpt-4o-mini)'],
        2: ['"two" (neuronpedia, gpt-4o-mini)'],
    }
    add(neuronpedia(tmp_path / "a.jsonl", line("1", "new")))
    assert explanation_words(file) == {1: ['"one" (delphi)', '"new" (neuronpedia, gpt-4o-mini)']}


def explained_workspace(root: Path, text: str) -> tuple[Workspace, str, int]:
    """A recorded run, an explanation of a latent of its best pick; that pick and the latent."""
    tables, workspace = make_tables(n_selected=3, n_near=2), open_workspace(root)
    commit(workspace, tables)
    (run,) = tables["run"].to_pylist()
    main = next(row for row in tables["selection"].to_pylist() if row["role"] == "main")
    best = next(
        row for row in tables["pick"].to_pylist()
        if row["rank"] == 2 and row["selection_id"] == main["selection_id"]
    )  # fmt: skip
    latents = [
        row["latent"] for row in tables["explanation"].to_pylist()
        if row["example_id"] == best["example_id"] and row["latent"] >= 0
        and row["space"].startswith(run["hookpoint"])
    ]  # fmt: skip
    file = workspace.described("some-sae") / EXPLANATIONS
    file.parent.mkdir(parents=True)
    rows = [line(latent, text) for latent in latents]
    read = read_explanations(neuronpedia(root / "a.jsonl", *rows), SAE)
    add_explanations(file, file, read, run["sae_sha256"])
    return workspace, best["example_id"], latents[0]


def test_why_and_the_report_show_them_as_text(tmp_path: Path) -> None:
    text = '</script><img src=x onerror="alert(1)"> dates \u202e in news'
    workspace, example, latent = explained_workspace(tmp_path, text)
    lines = {row.latent: row for row in explain(workspace, "calm-otter", example).latents}
    shown = f'"{text}" (neuronpedia, gpt-4o-mini)'
    assert lines[latent].description == shown
    assert lines[latent].words == shown.replace("\u202e", "⟨U+202E⟩")
    page = write_report(workspace, "calm-otter").read_text()
    assert "(neuronpedia, gpt-4o-mini)" in page
    assert "<img" not in page
    (workspace.described("some-sae") / EXPLANATIONS).write_bytes(b"PAR1 damaged")
    again = {row.latent: row for row in explain(workspace, "calm-otter", example).latents}
    assert again[latent].description != shown  # the rest goes on
