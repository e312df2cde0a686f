import re
from pathlib import Path

import pytest

from flows.config.load import load_config, merge, resolve
from flows.config.reference import config_keys, page
from selection.core.errors import InputError

SMALL = {"pool": "pool.jsonl", "exemplars": "exemplars.jsonl", "budget": {"examples": 5}}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "first.yaml"
    path.write_text(text)
    return path


GOOD = "pool: pool.jsonl\nexemplars: exemplars.jsonl\nbudget: {examples: 5}\n"


def test_a_short_config_is_filled_from_the_preset_and_named_after_its_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.name == "first"
    assert config.pool[0].path == "pool.jsonl"
    assert config.exemplars.path == "exemplars.jsonl"
    assert (config.ranking.exemplar_reduction, config.ranking.weights) == ("mean", "idf")


def test_a_key_of_the_config_wins_over_the_preset_and_its_siblings_stay(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD + "preset: paper\nranking: {weights: idf}\n"))
    assert (config.ranking.exemplar_reduction, config.ranking.weights) == ("prototype", "idf")


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, GOOD), {"budget": {"tokens": 9}, "ranking.weights": "none"}
    )
    assert config.budget.tokens == 9
    assert config.budget.examples is None
    assert config.ranking.weights == "none"


def test_spaces_whose_weights_leave_the_numbers_are_refused_before_any_work(tmp_path: Path) -> None:
    heavy = "representation: {spaces: [sae, {kind: tokens, weight: 63}]}\n"
    with pytest.raises(InputError, match=r"add up to 64.*`ranking.normalize: pool`.*below 64"):
        load_config(write(tmp_path, GOOD + heavy))
    load_config(write(tmp_path, GOOD + heavy + "ranking: {normalize: l1}\n"))
    load_config(write(tmp_path, GOOD + heavy + "ranking: {normalize: none}\n"))


@pytest.mark.parametrize("name", ["demo"])
def test_a_preset_with_a_pool_runs_by_its_name(name: str) -> None:
    assert load_config(name).pool[0].path.startswith("demo:")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD + "bugdet: 3\n", ["line 4", "`bugdet`", "no such key", "`budget`", "3"]),
        (GOOD + "ranking:\n  wieghts: idf\n", ["line 5", "`ranking.wieghts`", "`weights`"]),
        (
            GOOD + "ranking:\n  weights: tfidf\n",
            ["line 5", "'tfidf'", "'none', 'idf' or 'target_unique'"],
        ),
        (GOOD + "pool: other.jsonl\n", ["line 4", "`pool`", "twice"]),
        (GOOD + "preset: bset\n", ["line 4", "'bset'", "best, paper, demo"]),
        (GOOD + "  x: [\n", ["not valid YAML"]),
        ("pool: a\nexemplars: b\n", ["`budget`", "is missing", "no default budget"]),
        ("pool: a\nexemplars: b\nbudget: {examples: 0}\n", ["line 3", "`budget`", "larger than"]),
        ("pool: a\nexemplars: b\nbudget: {}\n", ["exactly one of", "no default budget"]),
        ("pool: a\nexemplars: b\nbudget: {fraction: 1.5}\n", ["`fraction` is 1.5"]),
        ("pool: a\nexemplars: b\nbudget: {examples: 1, tokens: 2}\n", ["exactly one of"]),
        ("exemplars: b\nbudget: {examples: 5}\n", ["`pool`", "saelect init"]),
        (GOOD + "sae: {path: x, train: {}}\n", ["`sae`", "either `path`"]),
        ("- a\n- b\n", ["has no keys"]),
    ],
)
def test_a_wrong_config_is_refused_with_place_value_and_remedy(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    for part in [*parts, "first.yaml"]:
        assert part in str(caught.value)


def test_a_missing_config_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml.*saelect init"):
        load_config(tmp_path / "nowhere.yaml")


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(InputError, match=r"(?s)weights.*also.*mispelt"):
        resolve({**SMALL, "mispelt": 1, "ranking": {"weights": "tf"}})


def test_a_budget_replaces_the_presets_budget_whole() -> None:
    assert merge({"budget": {"examples": 3}}, {"budget": {"tokens": 4}}) == {
        "budget": {"tokens": 4}
    }


def test_a_resolved_config_resolves_to_itself() -> None:
    config = resolve(SMALL)
    assert resolve(config.model_dump(mode="json")) == config


def test_an_override_reaches_into_a_list_and_says_how_long_it_is(tmp_path: Path) -> None:
    text = "pool: [{path: a}, {path: b}]\nexemplars: e\nbudget: {examples: 5}\n"
    config = load_config(write(tmp_path, text), {"pool.1.path": "c"})
    assert [pool.path for pool in config.pool] == ["a", "c"]
    with pytest.raises(InputError, match="2 entries"):
        load_config(write(tmp_path, text), {"pool.2.path": "c"})


@pytest.mark.parametrize(
    ("name", "counted"), [("paper", "all_and_template"), ("paper_bos", "every_token")]
)
def test_the_papers_configs_say_what_the_paper_does(name: str, counted: str) -> None:
    config = load_config(Path(__file__).parents[1] / "configs" / f"{name}.yaml")
    assert config.rendering.counted == counted
    assert (config.ranking.exemplar_reduction, config.ranking.weights) == ("prototype", "none")
    assert [space.kind for space in config.representation.spaces] == ["sae"]
    assert config.representation.max_norm_ratio is None
    assert config.model.hookpoint == "resid@30"


def test_a_short_list_of_spaces_is_enough(tmp_path: Path) -> None:
    text = GOOD + "representation: {spaces: [sae, {kind: words, weight: 2}]}\n"
    spaces = load_config(write(tmp_path, text)).representation.spaces
    assert [(space.kind, space.weight) for space in spaces] == [("sae", 1), ("words", 2)]


def test_every_key_is_explained_and_the_page_of_keys_is_current() -> None:
    assert [key.name for key in config_keys() if len(key.what) < 10] == []
    file = "docs/reference/config.md"
    kept = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    assert kept == page(), f"run: python -m flows.config.reference {file}"


def test_aliases_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 10):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    with pytest.raises(InputError, match="more than 100,000 values"):
        load_config(write(tmp_path, "\n".join(lines)))
    with pytest.raises(InputError, match="more than 100,000 values"):
        load_config(write(tmp_path, "a: &a [*a]"))
    with pytest.raises(InputError, match="nested too deeply"):
        load_config(write(tmp_path, "[" * 3000 + "]" * 3000))


def test_a_file_too_long_for_a_config_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"larger than 4 MB.*files of their own"):
        load_config(write(tmp_path, f"note: '{'x' * 4_000_000}'"))


def test_an_alias_means_the_value_of_its_anchor(tmp_path: Path) -> None:
    text = "pool: &file p.jsonl\nexemplars: *file\nbudget: {examples: 3}\n"
    assert load_config(write(tmp_path, text)).exemplars.path == "p.jsonl"


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("budget: {examples: yes}", "budget.examples"),
        ("budget: {examples: true}", "budget.examples"),
        ("budget: {examples: 1:30}", "budget.examples"),
        ("budget: {examples: 3}\nmin_score: false", "min_score"),
        ("budget: {examples: 3}\nseed: 10000000000000000000000000", "seed"),
        ("budget: {examples: 3}\nname: latest", "name"),
    ],
)
def test_what_yaml_or_python_would_take_for_a_number_is_refused(
    tmp_path: Path, line: str, field: str
) -> None:
    text = f"pool: pool.jsonl\nexemplars: exemplars.jsonl\n{line}\n"
    with pytest.raises(InputError, match=rf"line \d: `{re.escape(field)}`"):
        load_config(write(tmp_path, text))


def test_numbers_and_booleans_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = "pool: yes.jsonl\nexemplars: e.jsonl\nbudget: {fraction: 1e-2}\nname: NO\nindex: true\n"
    config = load_config(write(tmp_path, text))
    assert (config.budget.fraction, config.name, config.index) == (0.01, "NO", True)
