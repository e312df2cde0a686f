import ast
import re
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

from storage.queries.lookup import find_selection, picks
from tests.catalog_fixture import made_workspace
from tests.conftest import FAULT_MODULES, SLOW_MODULES
from tests.tree import PAGE, format_rooms, read_layers, read_rooms, rooms_in
from tests.tree import TOP as TOP_ROOMS

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "prefect", "transformers", "faiss"}
TOP = {
    "pyproject.toml", "README.md", "flows", "selection", "storage", "tests", "configs", "LICENSE",
    "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "mkdocs.yml", "prefect.yaml", "constraints.lock",
    "constraints-lowest.lock", "benchmarks", "docs", ".ci", ".gitignore", ".github",
    ".pre-commit-config.yaml",
}  # fmt: skip


@pytest.mark.parametrize("room", ["flows", "selection", "storage"])
def test_rooms_come_from_this_repository(room: str) -> None:
    file = import_module(room).__file__  # None when the room lost its __init__.py.
    assert file is not None
    assert Path(file).parent.parent == ROOT


def test_the_top_level_holds_what_the_layout_names_and_nothing_else() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listed.stdout.split()} == TOP


def test_init_files_hold_a_docstring_at_most() -> None:
    for room in ("flows", "selection", "storage"):
        for file in (ROOT / room).rglob("*/__init__.py"):
            statements = ast.parse(file.read_text()).body
            assert len(statements) == (ast.get_docstring(ast.Module(statements, [])) is not None)


def test_the_page_lists_the_rooms_as_they_are() -> None:
    """`python -m tests.tree --write` renews the list; sizes may be a quarter off."""
    listed, real = (rooms_in(PAGE), format_rooms(read_rooms()))
    assert re.sub(r" *\d+", "#", listed) == re.sub(r" *\d+", "#", real)
    sizes = [[int(n) for n in re.findall(r"\d+", text)] for text in (listed, real)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.25)


def test_every_room_beside_others_has_a_layer() -> None:
    siblings = defaultdict(list)
    for room in read_rooms():
        siblings[room.path.rpartition("/")[0]].append(room.path.replace("/", "."))
    named = {name for names in siblings.values() if len(names) > 1 for name in names}
    assert named - set(read_layers()) == set(TOP_ROOMS)


def test_the_files_with_marks_exist() -> None:
    names = {file.stem for file in (ROOT / "tests").glob("test_*.py")}
    assert set() == (SLOW_MODULES | FAULT_MODULES) - names


def test_every_lint_exception_has_a_reason() -> None:
    bare = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for room in ("flows", "selection", "storage", "tests", "benchmarks")
        for file in (ROOT / room).rglob("*.py")
        for line in file.read_text().splitlines()
        if re.search(r"# noqa", line) and not re.search(r"# noqa: [A-Z0-9, ]+ - \w", line)
    ]
    assert [line for line in bare if not line.startswith("tests/test_layout.py")] == []


def test_nothing_is_called_utils() -> None:
    assert [
        f for room in ("flows", "selection", "storage") for f in (ROOT / room).rglob("*util*.py")
    ] == []


def imports_of(statement: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after a statement."""
    code = f"import sys; {statement}\nprint(' '.join(m for m in sys.modules if '.' not in m))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return set(done.stdout.split())


def test_the_command_line_starts_without_heavy_libraries() -> None:
    assert not imports_of("import flows.cli.main") & (HEAVY | {"polars", "duckdb", "numba"})


def test_light_commands_import_neither_torch_nor_prefect() -> None:
    commands = "flows.cli.reading.catalog, flows.cli.reading.exports, storage.queries.sql"
    statement = f"import {commands}, storage.export.upload.hub, storage.report.page"
    statement += "; from huggingface_hub import CommitOperationAdd, HfApi"
    assert not imports_of(statement) & HEAVY


@pytest.mark.parametrize(
    "command", ["ls", "show", "why latest {example}", "diff calm-otter calm-otter-bm25",
                "where-used {example}", "sql FROM pick LIMIT 1", "export", "report",
                "export --to memory://place", "report calm-otter calm-otter-bm25"]
)  # fmt: skip
def test_a_light_command_runs_without_heavy_libraries(tmp_path: Path, command: str) -> None:
    """What a command imports while it runs counts, not only what it imports at its start."""
    workspace = made_workspace(tmp_path, n_selected=3, n_near=1)
    example = picks(workspace, find_selection(workspace, "latest").selection_id, 1)[0].example_id
    words = [word.format(example=example) for word in command.split(" ", 1)]
    given = [words[0], *(words[1:] if words[0] == "sql" else " ".join(words[1:]).split())]
    statement = (
        f"sys.argv = ['saelect', *{[*given, '-w', str(workspace.root)]!r}]; import io, contextlib\n"
        "from flows.cli.main import app\n"
        "with contextlib.redirect_stdout(io.StringIO()): app(standalone_mode=False)\n"
    )
    heavy = HEAVY | {"polars", "pyarrow", "pandas", "numba", "numpy", "datasets"}
    pages = set() if words[0] == "report" else {"jinja2"}
    assert not imports_of(statement) & (heavy | pages)


def test_prefects_server_application_imports_with_the_pinned_fastapi() -> None:
    assert "prefect" in imports_of("from prefect.server.api.server import create_app")


@pytest.mark.parametrize("name", ["flows", "selection", "storage"])
def test_a_foreign_package_of_the_same_name_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    for module in ("flows.cli.main", "selection.api"):
        if module.startswith(name):
            continue  # nothing of ours is imported
        code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import {module}"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert f"{tmp_path / name} has the name of a package of saelect" in run.stderr
