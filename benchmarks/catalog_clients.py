r"""Whether other versions of DuckDB open a catalog and answer as ours does.

    pip install --no-deps --target OLD "duckdb==1.2.2"
    python -m benchmarks.catalog_clients FILE [FILE ...] --client OLD [--client OTHER]

FILE is the snapshot of a workspace or the catalog of a bundle. Every view is counted and every
query of docs/reference/questions.md is run by each client, in a process of its own; rows must be
equal. Ends with exit code 1 where one is not. The last line is JSON: client -> number of equal
answers.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/questions.md"
QUESTIONS = dict(re.findall(r"^## (.+?)\n.*?```sql\n(.+?)```", PAGE.read_text(), re.S | re.M))
NAMES = {
    "SELECTION": "SELECT min(name) FROM selection",
    "OTHER": "SELECT max(name) FROM selection",
    "EXEMPLAR": "SELECT min(exemplar_id) FROM exemplar",
    "OWN-ID": "SELECT min(own_id) FROM v_selection",
    "WORDS": "SELECT 'a'",
}
"""What stands for the names of docs/reference/questions.md, as queries."""

CLIENT = """
import json, sys, duckdb
file, queries = json.load(sys.stdin)
connection = duckdb.connect()
connection.execute(f"ATTACH '{file}' AS snapshot (READ_ONLY)")
connection.execute("USE snapshot")
names = {n: connection.execute(q).fetchone()[0] for n, q in queries.pop("names").items()}
answers = {}
for question, query in queries["questions"].items():
    for name, value in names.items():
        query = query.replace(f"'{name}'", f"'{value}'")
    try:
        answers[question] = sorted(map(repr, connection.execute(query).fetchall()))
    except duckdb.Error as error:
        answers[question] = f"{type(error).__name__}: {error}"
print(json.dumps([duckdb.__version__, answers]))
"""


def main() -> None:
    """Ask every client, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", help="DuckDB files of a workspace or bundle")
    parser.add_argument("--client", type=Path, action="append", required=True, help="pip --target")
    arguments = parser.parse_args()
    equal: dict[str, int] = {}
    unlike = 0
    for file in arguments.files:
        _, ours = answers_of(file, None)
        for client in arguments.client:
            version, theirs = answers_of(file, client)
            wrong = [question for question in ours if theirs[question] != ours[question]]
            for question in wrong:
                print(f"{version} {file.name}: {question}: {str(theirs[question])[:200]}")
            equal[version] = equal.get(version, 0) + len(ours) - len(wrong)
            unlike += len(wrong)
    print(json.dumps(equal))
    sys.exit(1 if unlike else 0)


def answers_of(file: Path, client: Path | None) -> tuple[str, Mapping[str, object]]:
    """Version of a client, and its answer to every question; None is the installed DuckDB."""
    views = "SELECT view_name FROM duckdb_views() WHERE database_name = 'snapshot' AND NOT internal"
    questions = {**QUESTIONS, "views": views}
    for view in _views(file, views):
        questions[f"rows of {view}"] = f'SELECT count(*) FROM "{view}"'
    given = [str(file.resolve()), {"names": NAMES, "questions": questions}]
    environment = {**os.environ, **({"PYTHONPATH": str(client)} if client else {})}
    run = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps(given),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    version, answers = json.loads(run.stdout.splitlines()[-1])  # after progress bars
    return version, answers


def _views(file: Path, query: str) -> list[str]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{file}' AS snapshot (READ_ONLY)")
        return [str(row[0]) for row in connection.execute(query).fetchall()]


if __name__ == "__main__":
    main()
