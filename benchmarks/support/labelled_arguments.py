"""Command-line arguments of the benchmarks on a labelled pool."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def labelled_parser(
    doc: str | None, settings: Sequence[str] = ("instance", "full")
) -> argparse.ArgumentParser:
    """A parser that knows pool, targets, workspace and the like.

    doc: for --help. settings: what there is, the default first.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True, help="labelled pool, Parquet")
    parser.add_argument("--targets", type=Path, required=True, help="target tasks, JSON lines")
    parser.add_argument("--subpool", type=Path, help="ids of the rows to measure on")
    parser.add_argument("--workspace", type=Path, required=True, help="keeps vectors and results")
    parser.add_argument("--setting", choices=settings, default=settings[0])
    parser.add_argument("--threads", type=int, default=2)
    return parser
