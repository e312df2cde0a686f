"""The report page of a retrieval benchmark: one HTML file, no script, no request.

Reads the published snapshot only, so the page shows what SQL shows.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from selection.core.errors import InputError
from storage.catalog.commit import commit_if_writable
from storage.catalog.recorded import reported
from storage.catalog.snapshot import open_snapshot
from storage.export.facts import JsonRow, json_rows
from storage.files.atomic import write_bytes
from storage.files.workspace import Workspace
from storage.report.templates import page_environment

_MEANS = """
SELECT * FROM benchmark_mean WHERE benchmark_id = ?
ORDER BY setting, kind <> 'all', kind, ndcg DESC, method"""

# A method whose variants are averaged (seeds) is averaged here too.
_PER_TARGET = """
SELECT setting, target, method, avg(ndcg) AS ndcg FROM benchmark_result
WHERE benchmark_id = ? AND is_chosen GROUP BY ALL ORDER BY setting, target, ndcg DESC, method"""


def write_benchmark_report(workspace: Workspace, benchmark_id: str) -> Path:
    """Write `reports/benchmark-<id>.html`; returns its path. Raises InputError for no such id."""
    key = [benchmark_id]
    with open_snapshot(workspace) as connection:
        heads = json_rows(connection, "SELECT * FROM benchmark WHERE benchmark_id = ?", key)
        if not heads:
            raise InputError(
                "no such benchmark",
                file=workspace.snapshot,
                value=benchmark_id,
                remedy="`saelect sql 'FROM v_benchmark'` lists them.",
            )
        means = _grouped(json_rows(connection, _MEANS, key), "setting")
        targets = _grouped(json_rows(connection, _PER_TARGET, key), "setting")
    settings = {
        name: {
            "means": _grouped(rows, "kind"),
            "targets": _grouped(targets.get(name, []), "target"),
        }
        for name, rows in means.items()
    }
    page = page_environment().get_template("benchmark.html.j2")
    text = page.render(benchmark_id=benchmark_id, head=heads[0], settings=settings)
    path = workspace.reports / f"benchmark-{benchmark_id}.html"
    write_bytes(path, text.encode())
    commit_if_writable(workspace, reported(workspace, path, []))
    return path


def _grouped(rows: Sequence[JsonRow], column: str) -> dict[str, list[JsonRow]]:
    """Rows that stand together by the value of a column, in their order."""
    return {str(name): list(part) for name, part in groupby(rows, itemgetter(column))}
