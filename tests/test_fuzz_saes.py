"""A damaged SAE of any format is read or refused with a sentence; nothing in it is executed."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.core.errors import InputError
from selection.sae.formats.load import load_sae, read_sae_info
from tests.fuzz_cases import fuzz, nothing_written_outside, values
from tests.test_sae_formats_oracles import SAES, place

CASES = sorted(case.name for case in SAES.iterdir() if case.is_dir())
FILES = {
    case: sorted(file for file in (SAES / case).rglob("*")
                 if file.is_file() and file.name != "expected.npz")
    for case in CASES
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of all fixtures; each case spoils one file and puts it back."""
    root = tmp_path_factory.mktemp("fuzz-saes")
    shutil.copytree(SAES, root / "saes")
    return root


def paths_in(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [at]
    items = value.items() if isinstance(value, dict) else enumerate(value) \
        if isinstance(value, list) else ()  # fmt: skip
    for key, inner in items:
        found += paths_in(inner, (*at, key))
    return found


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[at[0]] = replaced(value[at[0]], at[1:], new)
    return copied


@st.composite
def damage(draw: st.DrawFn) -> tuple[str, Path, bytes | None]:
    """(case, file, new content): bytes changed, cut, JSON values replaced, or the file gone."""
    case = draw(st.sampled_from(CASES))
    file = draw(st.sampled_from(FILES[case]))
    content, kind = file.read_bytes(), draw(st.integers(0, 9))
    if kind < 5 and file.suffix == ".json":
        value = json.loads(content)
        at = draw(st.sampled_from(paths_in(value)))
        return case, file, json.dumps(replaced(value, at, draw(values))).encode()
    if kind == 9:
        return case, file, None
    if kind == 8:
        return case, file, content[: draw(st.integers(0, len(content)))]
    early = min(len(content), 400) - 1  # where headers are
    spoiled = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        end = early if draw(st.booleans()) else len(content) - 1
        spoiled[draw(st.integers(0, max(end, 0)))] = draw(st.integers(0, 255))
    return case, file, bytes(spoiled)


@fuzz()
@given(damaged=damage())
def test_a_damaged_sae_is_read_or_refused(
    folder: Path, damaged: tuple[str, Path, bytes | None]
) -> None:
    case, file, content = damaged
    spoiled = folder / "saes" / file.relative_to(SAES)
    root = folder / "saes" / place(case).relative_to(SAES)
    try:
        spoiled.unlink() if content is None else spoiled.write_bytes(content)
        for load in (read_sae_info, load_sae):
            with nothing_written_outside(folder), suppress(InputError):
                load(root)
    finally:
        spoiled.write_bytes(file.read_bytes())
