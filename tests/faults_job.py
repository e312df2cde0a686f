"""The job that `tests.faults_main` disturbs: a part of the demonstration pool, stages logged."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from flows.config.load import load_config
from flows.orchestration.progress import Listener, listening
from flows.stages.prepare.inputs import packaged
from tests.run_stages import run_job

POOL_ROWS = 120
UNIT_EXAMPLES = 4


class Aloud(Listener):
    """Says when a stage begins and ends, in a form that a program can wait for."""

    def begin(self, name: str, total: int | None, unit: str) -> None:
        super().begin(name, total, unit)
        sys.stdout.write(f"begin {name} {total} {unit}\n")

    def end(self, detail: str) -> None:
        super().end(detail)
        sys.stdout.write(f"end {self.name} {self.seconds:.3f}\n")


def write_config(folder: Path, compute: Mapping[str, object] | None = None) -> Path:
    """A pool and a config for it; returns the config's file."""
    pool, file = folder / "pool.jsonl", folder / "faults.yaml"
    lines = Path(packaged("demo:pool.jsonl")).read_text(encoding="utf-8").splitlines()
    pool.write_text("".join(line + "\n" for line in lines[:POOL_ROWS]), encoding="utf-8")
    exemplars = Path(packaged("demo:exemplars.jsonl")).read_text(encoding="utf-8").splitlines()
    config = {
        "pool": {"path": str(pool), "shape": "messages"},
        "exemplars": {
            "path": "demo:exemplars.jsonl",
            "targets": [json.loads(exemplars[0])["target"]],
        },
        "budget": {"examples": 25},
        "controls": ["random"],
        "model": "demo",
        "sae": "demo",
        "rendering": {"max_length": 512},
        "compute": {"unit_examples": UNIT_EXAMPLES, "threads": 1, **(compute or {})},
    }
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def main(config: Path, root: Path) -> None:
    with listening(Aloud()):
        run_job(load_config(config), root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
