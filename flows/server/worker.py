"""The process of one run, started by the worker: marked as alive, then Prefect's engine."""

import asyncio
import logging
import os
import runpy
import signal
import socket
import sys
from contextlib import nullcontext
from pathlib import Path

from flows.orchestration.prefect_settings import LIVE
from flows.server.liveness import alive
from flows.server.settings import POOL_NAME
from storage.files.workspace import chosen_root


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


async def work(runs_at_once: int) -> None:
    """Poll until SIGTERM or SIGINT; the worker then ends its runs."""
    from prefect.workers.process import ProcessWorker

    worker = ProcessWorker(
        work_pool_name=POOL_NAME,
        name=f"{socket.gethostname()}-{os.getpid()}",
        limit=runs_at_once,
        prefetch_seconds=1,
        create_pool_if_not_found=False,
    )
    running = asyncio.ensure_future(worker.start(printer=logging.getLogger(__name__).info))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1])))
