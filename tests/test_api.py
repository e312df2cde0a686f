"""The Python API gives what `saelect run` gives, to the bit, and says what cannot be done."""

import json
import shutil
import sys
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from selection.api import (
    Bounds,
    Diversity,
    NearDuplicates,
    Quota,
    Reader,
    Samples,
    Vectors,
    load_model,
    rank,
    read_exemplars,
    read_samples,
    represent,
    select,
    train_sae,
)
from selection.core.errors import InputError
from selection.data.training_rows import RowLayout
from selection.interactive.plots import picks_chart, ranking_chart
from selection.models.resolve import resolve_model
from selection.representation.represent import represent_heads
from storage.export.export import export_selection
from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.oracles import generalized_jaccard
from tests.run_stages import run_job, tiny_config
from tests.test_models_adapters import activations, write_adapter
from tests.tiny_model import write_jsonl

COLUMNS = {"id": "id", "source": "source", "licence": "licence"}
Paths = tuple[Path, Path, Path, Path]


@pytest.fixture(scope="module")
def reader(paths: Paths) -> Reader:
    return load_model(
        str(paths[2]),
        paths[3],
        hookpoint="resid@2",
        max_length=128,
        unit_examples=16,
        tokens_per_batch=512,
        threads=1,
    )


@pytest.fixture(scope="module")
def samples(paths: Paths) -> Samples:
    return read_samples(paths[0], columns=COLUMNS)


@pytest.fixture(scope="module")
def vectors(samples: Samples, reader: Reader) -> Vectors:
    return represent(samples, reader, progress=False)


@pytest.fixture(scope="module")
def exemplars(paths: Paths) -> Samples:
    [(_, found)] = read_exemplars(paths[1], columns=COLUMNS).items()
    return found


def picks_of(workspace: Workspace) -> list[tuple[object, object]]:
    rows = run_sql(workspace, "SELECT example_id, score FROM v_selection ORDER BY rank").to_pylist()
    return [(row["example_id"], row["score"]) for row in rows]


RULES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {}, {}),
    ({"ranking": {"exemplar_reduction": "max"}}, {"exemplar_reduction": "max"}, {}),
    (
        {
            "where": "source <> 'arithmetic' AND n_chars < 90",
            "exclude": ["row-5"],
            "min_score": 0.01,
        },
        {"where": "source <> 'arithmetic' AND n_chars < 90", "exclude": ["row-5"]},
        {"min_score": 0.01},
    ),
    (
        {"near_duplicates": {"similarity": 0.5, "text_overlap": 0.1}, "diversity": {"trade": 0.5}},
        {},
        {
            "near_duplicates": NearDuplicates(similarity=0.5, text_overlap=0.1),
            "diversity": Diversity(trade=0.5),
        },
    ),
    ({"replay": {"share": 0.45}, "seed": 5}, {}, {"replay_share": 0.45, "seed": 5}),
    (
        {"quotas": [{"column": "source", "others": {"cap": 3}}]},
        {},
        {"quotas": [Quota("source", {}, Bounds(cap=3))]},
    ),
]


@pytest.mark.parametrize(("config", "ranking", "picking"), RULES)
def test_picks_and_scores_are_those_of_a_run(
    paths: Paths,
    vectors: Vectors,
    exemplars: Samples,
    tmp_path: Path,
    config: dict[str, Any],
    ranking: dict[str, Any],
    picking: dict[str, Any],
) -> None:
    joined = {"token_aggregate": "mean", "spaces": ["sae", "tokens"]}
    more = {"representation": joined, "ranking": {"normalize": "pool"} | config.pop("ranking", {})}
    workspace, _ = run_job(tiny_config(*paths, **more, **config), tmp_path / "workspace")

    chosen = select(rank(vectors, exemplars, **ranking), examples=7, **picking)

    scores = chosen.table["score"].to_list()
    assert list(zip(chosen.ids, scores, strict=True)) == picks_of(workspace)
    [file] = (workspace.root / "exports").rglob("train.jsonl")
    assert chosen.write(tmp_path / "train.jsonl") == 7
    assert (tmp_path / "train.jsonl").read_bytes() == file.read_bytes()
    for order in ("length", "random"):
        layout = RowLayout(("weight", "score", "rank"), order, seed=3)
        folder = export_selection(workspace, "latest", out=tmp_path / order, layout=layout).folder
        chosen.write(tmp_path / "laid-out.jsonl", **asdict(layout))
        assert (tmp_path / "laid-out.jsonl").read_bytes() == (folder / "train.jsonl").read_bytes()


def test_rows_in_memory_are_the_same_samples(
    samples: Samples, tiny_pool_rows: list[dict[str, Any]]
) -> None:
    frame = pl.DataFrame(
        [{**row, "messages": json.dumps(row["messages"])} for row in tiny_pool_rows]
    )
    for data in (tiny_pool_rows, frame.to_arrow()):
        found = read_samples(data, columns=COLUMNS)
        assert found.ids.tolist() == samples.ids.tolist()
        assert found.table.equals(samples.table)


def test_a_folder_keeps_vectors_and_only_new_samples_are_run(
    tiny_pool_rows: list[dict[str, Any]],
    reader: Reader,
    vectors: Vectors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = read_samples(tiny_pool_rows[:20], columns=COLUMNS)
    represent(half, reader, folder=tmp_path, progress=False)
    run: list[int] = []

    def counting(rendered: Any, *rest: Any) -> Any:
        run.append(len(rendered))
        return represent_heads(rendered, *rest)

    monkeypatch.setattr("selection.interactive.vectors.represent_heads", counting)
    whole = read_samples(tiny_pool_rows, columns=COLUMNS)
    found = represent(whole, reader, folder=tmp_path, progress=False)
    again = represent(whole, reader, folder=tmp_path, progress=False)

    assert sum(run) == len(whole) - len(half)
    for one, other in zip(found.rows, again.rows, strict=True):
        assert np.array_equal(one.indptr, other.indptr)
        assert np.array_equal(one.values, other.values)
    assert len(found.rows[0].values) == pytest.approx(len(vectors.rows[0].values), rel=0.01)


def test_a_score_is_the_slow_definition(vectors: Vectors, exemplars: Samples) -> None:
    ranked = rank(vectors, exemplars, weights="none", normalize="none", exemplar_reduction="max")
    given = ranked.input
    joined = given.spaces.rows(
        [part.gather(np.arange(len(vectors))) for part in given.vectors.parts]
    )

    def row(rows: Any, number: int) -> dict[int, int]:
        part = slice(rows.indptr[number], rows.indptr[number + 1])
        return dict(zip(rows.latents[part].tolist(), rows.values[part].tolist(), strict=True))

    against = given.exemplars["target"].rows
    for number in ranked.ranking.rows[:5]:
        slow = max(
            generalized_jaccard(row(joined, int(number)), row(against, other))
            for other in range(len(exemplars))
        )
        assert ranked.scores[number] == pytest.approx(float(slow), abs=1e-15)


def test_an_explanation_adds_up_to_the_similarity(vectors: Vectors, exemplars: Samples) -> None:
    chosen = select(rank(vectors, exemplars), examples=3)
    why = chosen.explain(0, top=5)
    assert why["share"].sum() == pytest.approx(1)
    assert why.equals(chosen.explain(chosen.ids[0], top=5))
    assert set(why["space"].drop_nulls()) <= {"resid@2", "tokens"}


def test_a_larger_budget_contains_the_smaller(vectors: Vectors, exemplars: Samples) -> None:
    ranked = rank(vectors, exemplars)
    small, large = select(ranked, examples=4), select(ranked, tokens=400)
    assert large.picks.n_tokens is not None
    assert large.picks.n_tokens <= 400
    shorter = min(len(small), len(large))
    assert small.ids[:shorter] == large.ids[:shorter]


def test_items_that_decontamination_cannot_search_for_are_named(
    vectors: Vectors, exemplars: Samples
) -> None:
    short, long = ("Say yes", "a question of many words that no sample of the pool holds at all")
    items = read_samples(
        [{"messages": [{"role": "user", "content": text}]} for text in (short, long)]
    )
    ranked = rank(vectors, exemplars, evaluation_items=items)
    alone = rank(vectors, exemplars)
    too_short = [i for i in range(2) if items.conversation(i)[0][0]["content"] == short]
    assert set(ranked.unsearched) - set(alone.unsearched) == {str(items.ids[too_short[0]])}
    assert rank(vectors, exemplars, decontaminate=False).unsearched == ()


def test_where_sees_the_characters_of_a_sample(samples: Samples) -> None:
    lengths = [
        sum(len(message["content"]) for message in messages)
        for messages, _ in samples.conversations()
    ]
    middle = sorted(lengths)[len(lengths) // 2]
    passing = samples.passing(f"n_chars < {middle}")
    assert passing.tolist() == [length < middle for length in lengths]
    assert 0 < passing.sum() < len(samples)


def test_what_cannot_be_done_is_said(vectors: Vectors, exemplars: Samples) -> None:
    ranked = rank(vectors, exemplars)
    with pytest.raises(ValueError, match="exactly one"):
        select(ranked)
    with pytest.raises(InputError, match="not among the samples"):
        select(ranked, examples=3, include=["nobody"])
    with pytest.raises(InputError):
        select(ranked, examples=10**6)
    with pytest.raises(InputError):
        rank(vectors, exemplars, where="no_such_column = 1")
    with pytest.raises(TypeError):
        rank(vectors, exemplars, wheer="1 = 1")


def test_a_trained_sae_is_loaded_again(paths: Paths, samples: Samples, tmp_path: Path) -> None:
    options = {"num_latents": 64, "k": 4, "tokens": 512, "batch_tokens": 128, "max_length": 128}
    folder = train_sae(
        samples, str(paths[2]), tmp_path / "one", hookpoint="resid@2", progress=False, **options
    )
    again = train_sae(
        samples, str(paths[2]), tmp_path / "two", hookpoint="resid@2", progress=False, **options
    )
    reader = load_model(str(paths[2]), folder)
    assert str(reader.hookpoint) == "resid@2"
    assert reader.coder.info.num_latents == 64
    for file in sorted(folder.glob("*.safetensors")):
        assert file.read_bytes() == (again / file.name).read_bytes()


def test_exemplars_in_memory_and_by_name(tmp_path: Path, paths: Paths) -> None:
    rows = [json.loads(line) for line in paths[1].read_text().splitlines()]
    [(name, found)] = read_exemplars(rows, target="mine").items()
    assert (name, len(found)) == ("mine", len(rows))
    with pytest.raises(InputError):
        read_exemplars(write_jsonl(tmp_path / "bad.jsonl", [{"nothing": 1}]))


def test_a_model_is_named_as_the_config_names_it(paths: Paths, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", paths[2], ["layers.0.mlp.up_proj"])
    named = {"name": str(paths[2]), "adapter": str(adapter)}
    sae = Path(shutil.copytree(paths[3], tmp_path / "layers.2"))
    record = {"model": "org/base", "model_sha256": resolve_model(paths[2]).weights_sha256}
    (sae / "saelect.json").write_text(json.dumps(record))
    load_model(str(paths[2]), sae)
    with pytest.raises(InputError, match="trust_model: true"):
        load_model(named, sae)
    reader = load_model(named, sae, trust_model=True, checks=tmp_path / "checks")
    tokens = np.arange(7, 27, dtype=np.uint32)
    [[ours]] = reader.activations.read_samples([tokens])
    [merged] = activations(paths[2], tmp_path, 2, [tokens], adapter=str(adapter))
    assert reader.model == resolve_model(paths[2], adapter=str(adapter))
    assert np.array_equal(ours.numpy(), merged.numpy())
    assert len(list((tmp_path / "checks").iterdir())) == 1
    with pytest.raises(InputError, match=r"q4\.gguf: there is no such file"):
        load_model({"name": str(paths[2]), "gguf_file": "q4.gguf"}, paths[3])
    with pytest.raises(TypeError, match="adaptor"):
        load_model({"name": str(paths[2]), "adaptor": str(adapter)}, paths[3])


def test_plots_show_what_a_run_records(
    paths: Paths, vectors: Vectors, exemplars: Samples, tmp_path: Path
) -> None:
    joined = {"token_aggregate": "mean", "spaces": ["sae", "tokens"]}
    more = {"representation": joined, "ranking": {"normalize": "pool"}}
    workspace, _ = run_job(tiny_config(*paths, **more), tmp_path / "workspace")
    query = "SELECT curve, lengths FROM selection"
    curve, lengths = [json.loads(str(cell)) for cell in run_sql(workspace, query).rows[0]]
    query = "SELECT source, share_pool, share_selected FROM v_source_mix"
    mix = {row[0]: row[1:] for row in run_sql(workspace, query).rows}
    ranked = rank(vectors, exemplars)
    chosen = select(ranked, examples=7)

    [line] = ranking_chart(ranked)["data"]
    again, picks, *bars = picks_chart(chosen)["data"]

    assert again == line
    assert (line["x"], line["y"]) == (curve["ranks"], curve["scores"])
    assert picks["x"] == list(range(1, 8))
    assert picks["y"] == [score for _, score in picks_of(workspace)]
    tokens = {bar["name"]: bar["y"] for bar in bars if bar["orientation"] == "v"}
    for name, of in (("pool", "pool"), ("picked", "selected")):
        assert tokens[name] == pytest.approx([n / sum(lengths[of]) for n in lengths[of]])
    sources = {bar["name"]: bar for bar in bars if bar["orientation"] == "h"}
    for number, name in enumerate(("pool", "picked")):
        shares = dict(zip(sources[name]["y"], sources[name]["x"], strict=True))
        assert shares == pytest.approx({source: share[number] for source, share in mix.items()})


def test_a_plot_is_plotlys_figure_or_says_what_is_missing(
    vectors: Vectors, exemplars: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = rank(vectors, exemplars)
    made = types.SimpleNamespace(Figure=lambda chart: ("figure", len(chart["data"])))
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", made)
    monkeypatch.setitem(sys.modules, "plotly", types.ModuleType("plotly"))
    assert ranked.plot() == ("figure", 1)
    assert select(ranked, examples=3).plot() == ("figure", 6)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(InputError, match="pip install plotly"):
        ranked.plot()
