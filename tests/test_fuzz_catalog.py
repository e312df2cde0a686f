"""Whatever is asked of a catalog, it answers or refuses with a sentence, and nothing changes."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.core.errors import InputError
from storage.audit.explain import explain
from storage.catalog.connection import Connection
from storage.files.workspace import Workspace
from storage.queries.lookup import diff, find_example, find_selections
from storage.queries.sql import answer, locked_snapshot, run_sql
from tests.catalog_fixture import made_workspace, make_tables, write_scores
from tests.fuzz_cases import fuzz, nothing_written_outside

PIECES = [
    "SELECT", "FROM", "pick", "v_selection", "v_why", "scores", "*", "(", ")", ",", ";", "1",
    "''", "'x'", "WHERE", "GROUP BY ALL", "ORDER BY", "LIMIT", "-1", "WITH x AS", "UNION ALL",
    "JOIN", "USING (selection_id)", "DATE '294247-01-10'", "TIMESTAMP 'infinity'",
    "INTERVAL 99999999 YEARS", "'\\x00'::BLOB", "1e400", "-", "9223372036854775807 + 1",
    "170141183460469231731687303715884105727", "x'00'", "NULL::STRUCT(a INT)", "%s", "MAP {1: 2}",
    "[1, 2]", "{'a': 1}", "uuid()", "TIME '24:00:00'", "'a'::BIT", "$1", "?", ":x", "--", "/*",
    "read_text('/etc/passwd')", "read_csv('{outside}')", "glob('{root}/../*')",
    "COPY pick TO '{outside}'", "AS x", "ATTACH '{outside}'", "INSTALL json", "PRAGMA version",
    "SET threads = 1", "getenv('HOME')", "EXPORT DATABASE", "query('DROP TABLE pick')",
    "DELETE FROM pick", "RETURNING *", "EXPLAIN", "DESCRIBE", "SUMMARIZE", "pick.",
    "(SELECT max(rank) FROM pick)", "range(3)", "unnest([1])", "repeat('a', 9)", "json('{}')",
    "\ud800", "\x00", "\xe9",
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    tables = {"n_selected": 3, "n_near": 2}
    made = made_workspace(tmp_path_factory.mktemp("fuzz-catalog") / "w", **tables)
    write_scores(made, make_tables(**tables))  # type: ignore[arg-type]
    (made.root.parent / "outside").write_text("secret")
    return made


@pytest.fixture(scope="module")
def connection(workspace: Workspace) -> Iterator[Connection]:
    with locked_snapshot(workspace) as opened:
        yield opened


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def nothing_changes(workspace: Workspace) -> Iterator[None]:
    """After all cases, every file of the workspace and beside it is what it was."""
    before = content(workspace.root.parent)
    yield
    assert content(workspace.root.parent) == before


@fuzz(0.95)
@given(
    pieces=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=8),
    selects=st.booleans(),
)
def test_any_sql_is_answered_or_refused(
    workspace: Workspace, connection: Connection, pieces: list[str], selects: bool
) -> None:
    text = " ".join(["SELECT"] * selects + pieces)
    text = text.replace("{outside}", str(workspace.root.parent / "outside"))
    text = text.replace("{root}", str(workspace.root))
    with nothing_written_outside(workspace.root), suppress(InputError):
        rows = answer(connection, text, max_rows=5).rows
        assert "secret" not in str(rows)


NAMES = st.one_of(
    st.sampled_from(["latest", "calm-otter", "calm", "'", "%", "", "--", "\ud800", "\0", "../x"]),
    st.text(max_size=6),
)


@fuzz(0.01)
@given(first=NAMES, second=NAMES)
def test_any_name_is_found_or_refused(workspace: Workspace, first: str, second: str) -> None:
    for look_up in (
        lambda: find_selections(workspace, first),
        lambda: find_example(workspace, second),
        lambda: explain(workspace, first, second),
        lambda: diff(workspace, first, second),
    ):
        with nothing_written_outside(workspace.root), suppress(InputError):
            look_up()


@fuzz(0.04)
@given(data=st.data())
def test_a_damaged_snapshot_is_refused(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Its headers carry checksums: what is damaged there, or cut, is never opened."""
    whole = workspace.snapshot.read_bytes()
    damaged = Workspace(tmp_path_factory.getbasetemp() / "fuzz-damaged")
    damaged.root.mkdir(exist_ok=True)
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, 3 * 4096))
        damaged.snapshot.write_bytes(whole[:cut])
    else:
        spoiled = bytearray(whole[: 3 * 4096])
        at = data.draw(st.integers(0, len(spoiled) - 1))
        spoiled[at] ^= data.draw(st.integers(1, 255))
        damaged.snapshot.write_bytes(bytes(spoiled) + whole[3 * 4096 :])
    with nothing_written_outside(damaged.root), suppress(InputError):
        assert run_sql(damaged, "SELECT count(*) FROM pick").rows == [(9,)]
