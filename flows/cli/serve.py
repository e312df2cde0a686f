"""`saelect serve`: start server, worker and deployments, watch them, end them in order."""

import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import quote

from flows.orchestration.terminal import say
from flows.server.processes import Process, start, stop
from flows.server.settings import LOOPBACK, POOL_NAME, WORKER_NAME, ServerSettings, environment
from selection.core.errors import InputError
from storage.files import locks
from storage.files.workspace import user_name

START_SECONDS = 180.0
CHECK_SECONDS = 0.2


def serve(settings: ServerSettings) -> None:
    """Run everything until Ctrl-C or SIGTERM.

    Raises InputError for a taken port, a missing password, and a second server of a workspace.
    """
    require_password(settings.host, settings.password)
    address = settings.folder / "address"
    try:
        with locks.held(settings.folder / "serve", 2.0):
            refuse_taken_port(settings.host, settings.port)
            address.write_text(settings.url, encoding="utf-8")
            _run(settings)
    except InputError as error:
        if error.file != settings.folder / "serve":
            raise
        raise InputError(
            f"this workspace is served already, at {address.read_text(encoding='utf-8')}",
            field="--workspace",
            value=str(settings.workspace.root),
            remedy="Open that address, or end that server first.",
        ) from None


def require_password(host: str, password: str | None) -> None:
    """Refuse an address that other machines reach without a password of the user's own."""
    if host not in LOOPBACK and not password:
        raise InputError(
            "an address that other machines reach needs a password",
            field="--host",
            value=host,
            remedy="Set SAELECT_PASSWORD, or keep 127.0.0.1 and use `ssh -L` from elsewhere.",
        )


def refuse_taken_port(host: str, port: int) -> None:
    """Refuse a port that another program has, before anything is started."""
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise InputError(
            f"cannot listen there ({error.strerror or error})",
            field="--port",
            value=f"{host}:{port}",
            remedy=f"Another program has it: end that, or name another, as in --port {port + 1}.",
        ) from None


def _run(settings: ServerSettings) -> None:
    """Start, print the address, watch, and end everything on the way out."""
    begun, ended = time.monotonic(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    say(f"saelect: starting the server for {settings.workspace.root} ...")
    folder, variables = settings.folder, environment(settings)
    ready = folder / "ready"  # tells what changed, once the deployments are there
    commands = {
        "server": ["flows.server.app", settings.host, str(settings.port), str(ready)],
        "worker": ["prefect", "worker", "start", "--pool", POOL_NAME, "--name", WORKER_NAME],
    }
    commands["worker"] += ["--limit", str(settings.runs_at_once)]
    running: dict[str, Process] = {}

    def begin(name: str) -> None:
        running[name] = start(commands[name], variables, folder / f"{name}.log")

    try:
        ready.unlink(missing_ok=True)
        begin("server")
        if _is_ready(running["server"], ready, ended):
            begin("worker")
            _print_address(settings, time.monotonic() - begun)
        while not ended.wait(CHECK_SECONDS):
            for name, process in running.items():
                if process.poll() is not None:
                    say(f"  restarted   {name} (it had ended with code {process.returncode})")
                    stop(process)  # what it has started
                    begin(name)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        say("\nsaelect: stopping ...")
        for process in reversed(running.values()):  # Runs tell their states to the server.
            stop(process)
        say("saelect: stopped.")


def _is_ready(server: Process, ready: Path, ended: threading.Event) -> bool:
    """Wait for the deployments and say what changed; False when told to end meanwhile."""
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            log = ready.with_name("server.log")
            last = log.read_text(errors="replace").splitlines()[-12:]
            raise InputError(
                "\n".join([f"the server did not start (code {server.returncode}):", *last]),
                file=log,
                remedy="The log says more.",
            )
        if ended.wait(CHECK_SECONDS):
            return False
    for line in ready.read_text(encoding="utf-8").splitlines():
        say(f"  changed     {line}")
    return True


def _print_address(settings: ServerSettings, seconds: float) -> None:
    port, here = settings.port, socket.gethostname()
    path = "" if settings.password else f"/saelect/login?key={quote(settings.secret)}"
    say(
        f"  open        {settings.url}{path}\n"
        f"  from afar   ssh -L {port}:127.0.0.1:{port} {user_name()}@{here}"
        f"  then http://localhost:{port}{path}\n"
        "  start       Deployments, then select-data\n"
        f"  logs        {settings.folder}/*.log\n"
        f"  Ready in {seconds:.0f} s. Ctrl-C stops everything;"
        " a stopped run resumes when it is run again."
    )
