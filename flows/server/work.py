"""The worker process: takes runs from the work pool and starts a process for each."""

import asyncio
import logging
import os
import signal
import socket
import sys

from flows.server.settings import POOL_NAME


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
