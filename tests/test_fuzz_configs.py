"""Whatever a config file says, it is a config or refused with a sentence."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows.config.jobs import SelectConfig, VectorJob
from flows.config.load import load_config, load_vector_job
from selection.core.errors import InputError
from tests.fuzz_cases import fuzz, nothing_written_outside, scalars, values, words

Loader = Callable[..., VectorJob]
DEMO = yaml.safe_load((files("flows.config") / "presets" / "demo.yaml").read_text(encoding="utf-8"))
START = {"pool": "p.jsonl", "exemplars": "e.jsonl", "budget": {"examples": 5}}
SECTIONS = sorted(SelectConfig.model_fields)
INNER = sorted(
    {
        name
        for field in SelectConfig.model_fields.values()
        for name in getattr(field.annotation, "model_fields", {})
    }
)
keys = st.one_of(st.sampled_from(SECTIONS), words)
sections = st.one_of(
    scalars, values, st.dictionaries(st.sampled_from(INNER), values, max_size=3),
    st.lists(st.dictionaries(st.sampled_from(["path", "column", "values"]), values), max_size=2),
)  # fmt: skip
PIECES = [
    "pool: p.jsonl\n", "budget: {examples: 5}\n", "exemplars: e\n", "a: &x [*x]\n",
    "? [1, 2]\n: 3\n", "? {a: 1}\n", "1: 2\n", "null: 1\n", "2026-13-45: 1\n",
    "note: 2026-99-99\n", "x: !!python/object:os.system {}\n", "x: !!binary '='\n", "<<: 3\n",
    "<<: {a: 1}\n", "\t- a\n", "'\x00'\n", "\x07", "---\n", "...\n", "%YAML 9.9\n",
    "seed: 0o17\n", "seed: 1_000\n", "seed: 190:20:30\n", "where: |\n  a\n", "[" * 40, "{" * 40,
    "- " * 40, "budget: {examples: .inf}\n", "budget: {examples: 1e400}\n", "min_score: .nan\n",
    "\ufeff", "a: b: c\n", "budget: {tokens: 99999999999999999999999999}\n", "x: !!timestamp a\n",
    "x: !!int b\n", "x: !!float z\n",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz-configs")


def config_or_refused(
    folder: Path,
    overrides: dict[str, object] | None = None,
    loaders: tuple[Loader, ...] = (load_config, load_vector_job),
) -> None:
    for load in loaders:
        with nothing_written_outside(folder):
            try:
                config = load(folder / "config.yaml", overrides)
            except InputError:
                continue
        config.model_dump_json()


@fuzz(0.5)
@given(changes=st.dictionaries(keys, sections, max_size=3), start=st.sampled_from([DEMO, START]))
def test_any_mapping_is_a_config_or_refused(
    folder: Path, changes: dict[str, object], start: dict[str, object]
) -> None:
    text = yaml.safe_dump({**start, **changes}, allow_unicode=False)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    config_or_refused(folder, loaders=(load_config,))


@fuzz(0.25)
@given(text=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=6))
def test_any_text_is_a_config_or_refused(folder: Path, text: list[str]) -> None:
    content = "".join(text).encode("utf-8", "surrogatepass")
    (folder / "config.yaml").write_bytes(content)
    config_or_refused(folder)


@fuzz(0.25)
@given(
    key=st.lists(st.one_of(st.sampled_from([*SECTIONS, *INNER, "0", "9"]), words), max_size=3),
    value=st.one_of(st.sampled_from(PIECES), st.text(max_size=6)),
)
def test_any_override_is_taken_or_refused(folder: Path, key: list[str], value: str) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(START), encoding="utf-8")
    config_or_refused(folder, {".".join(key): value})
