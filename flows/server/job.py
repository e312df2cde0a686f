"""The process of one run, started by the worker: marked as alive, then Prefect's engine."""

import os
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

from flows.names import LIVE
from flows.server.live import alive
from storage.workspace import chosen_root


def folder_of_marks() -> Path | None:
    """Where `serve` looks for live runs; a worker of another host finds it in the workspace."""
    if os.environ.get(LIVE):
        return Path(os.environ[LIVE])
    folder = chosen_root(None) / ".server" / "live"
    return folder if folder.is_dir() else None


def main() -> None:
    """Run the flow run that the worker names in the environment."""
    run_id, folder = os.environ["PREFECT__FLOW_RUN_ID"], folder_of_marks()
    code = 0
    with alive(folder, run_id) if folder else nullcontext():
        sys.argv = [sys.argv[0]]
        try:
            runpy.run_module("prefect.engine", run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    # Prefect's daemon threads would be waited for, and with them alive DuckDB prints "leaks".
    os._exit(code)


if __name__ == "__main__":
    main()
