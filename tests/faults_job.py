"""The job that `tests.faults` kills: a part of the demonstration pool, stages announced aloud."""

import json
import sys
import time
from pathlib import Path

from flows.config.file import resolve
from flows.progress import listening
from flows.stages.inputs import packaged
from tests.jobs import run_job

POOL_ROWS = 240


class Aloud:
    """Says when a stage begins and ends, in a form that a program can wait for."""

    def begin(self, name: str, total: int | None, unit: str) -> None:
        self.name, self.started = name, time.monotonic()
        sys.stdout.write(f"begin {name} {total} {unit}\n")

    def advance(self, amount: int) -> None:
        del amount

    def end(self, detail: str) -> None:
        del detail
        sys.stdout.write(f"end {self.name} {time.monotonic() - self.started:.3f}\n")


def main(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    pool = root / "pool.jsonl"
    lines = Path(packaged("demo:pool.jsonl")).read_text(encoding="utf-8").splitlines()
    pool.write_text("".join(line + "\n" for line in lines[:POOL_ROWS]), encoding="utf-8")
    exemplars = Path(packaged("demo:exemplars.jsonl")).read_text(encoding="utf-8").splitlines()
    config = resolve(
        {
            "name": "faults",
            "pool": {"path": str(pool), "shape": "messages"},
            "exemplars": {
                "path": "demo:exemplars.jsonl",
                "targets": [json.loads(exemplars[0])["target"]],
            },
            "budget": {"examples": 50},
            "controls": ["random"],
            "rendering": {"max_length": 512},
            "compute": {"unit_examples": 8, "threads": 1},
        }
    )
    with listening(Aloud()):
        run_job(config, root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
