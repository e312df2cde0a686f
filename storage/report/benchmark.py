"""The report page of a retrieval benchmark: one HTML file, no script, no request.

Reads the published snapshot only, so the page shows what SQL shows.
"""

from dataclasses import dataclass
from pathlib import Path

from selection.core.errors import InputError
from storage.catalog.commit import commit_if_writable
from storage.catalog.connection import Connection
from storage.catalog.recorded import reported
from storage.catalog.snapshot import open_snapshot
from storage.files.atomic import write_bytes
from storage.files.workspace import Workspace
from storage.report.templates import page_environment

_NO_TARGETS = "all"


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One line of the table of means: see the catalog's `benchmark_mean`."""

    method: str
    variant: str
    kind: str
    ndcg: float
    lo: float
    hi: float
    behind_best: float | None
    behind_lo: float | None
    behind_hi: float | None
    best_wins: float | None


def write_benchmark_report(workspace: Workspace, benchmark_id: str) -> Path:
    """Write `reports/benchmark-<id>.html`; returns its path. Raises InputError for no such id."""
    with open_snapshot(workspace) as connection:
        head = connection.execute(
            "SELECT created_at, seconds, pool, pool_sha256, n_rows, n_targets, model, sae"
            " FROM benchmark WHERE benchmark_id = ?",
            [benchmark_id],
        ).fetchone()
        if head is None:
            raise InputError(
                "no such benchmark",
                file=workspace.snapshot,
                value=benchmark_id,
                remedy="`saelect sql 'FROM v_benchmark'` lists them.",
            )
        settings = {
            setting: {
                "means": _means(connection, benchmark_id, setting),
                "targets": _per_target(connection, benchmark_id, setting),
            }
            for (setting,) in connection.execute(
                "SELECT DISTINCT setting FROM benchmark_mean WHERE benchmark_id = ?"
                " ORDER BY setting",
                [benchmark_id],
            ).fetchall()
        }
    page = page_environment().get_template("benchmark.html.j2")
    names = ("created_at", "seconds", "pool", "pool_sha256", "n_rows", "n_targets", "model", "sae")
    text = page.render(
        benchmark_id=benchmark_id, head=dict(zip(names, head, strict=True)), settings=settings
    )
    path = workspace.reports / f"benchmark-{benchmark_id}.html"
    write_bytes(path, text.encode())
    commit_if_writable(workspace, reported(workspace, path, []))
    return path


def _means(
    connection: Connection, benchmark_id: str, setting: str
) -> dict[str, list[BenchmarkRow]]:
    """Kind of target -> methods, best first."""
    rows = connection.execute(
        "SELECT method, variant, kind, ndcg, lo, hi, behind_best, behind_lo, behind_hi, best_wins"
        " FROM benchmark_mean WHERE benchmark_id = ? AND setting = ?"
        " ORDER BY kind DESC, ndcg DESC, method",
        [benchmark_id, setting],
    ).fetchall()
    by_kind: dict[str, list[BenchmarkRow]] = {}
    for row in rows:
        by_kind.setdefault(row[2], []).append(BenchmarkRow(*row))
    order = sorted(by_kind, key=lambda kind: (kind != _NO_TARGETS, kind))
    return {kind: by_kind[kind] for kind in order}


def _per_target(
    connection: Connection, benchmark_id: str, setting: str
) -> dict[str, list[tuple[str, float]]]:
    """Target -> (method, nDCG) of the variants that stand for their methods, best first.

    A method whose variants are averaged (seeds) is averaged here too.
    """
    rows = connection.execute(
        "SELECT target, method, avg(ndcg) AS ndcg FROM benchmark_result"
        " WHERE benchmark_id = ? AND setting = ? AND is_chosen"
        " GROUP BY target, method ORDER BY target, ndcg DESC, method",
        [benchmark_id, setting],
    ).fetchall()
    by_target: dict[str, list[tuple[str, float]]] = {}
    for target, method, ndcg in rows:
        by_target.setdefault(target, []).append((method, ndcg))
    return by_target
