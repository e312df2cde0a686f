"""The Prefect server that a command's run reports to: the one that is set, or one of its own.

Prefect would start a temporary server by itself, but only once the run needs it: five seconds of
waiting, and three more to import the server into this process. Started here, it gets ready while
the command checks its inputs. Its database has the version of Prefect in its name, because a
database that a newer Prefect has changed cannot be opened by an older one.
"""

import atexit
import http.client
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

from flows.orchestration.terminal import say
from selection.core.errors import InputError
from selection.core.redaction import without_secrets

READY_WITHIN_S = 600.0
"""How long a server may take that migrates a new database on a busy machine: ten CPU seconds."""

_POLL_S = 0.05
_ANSWER_WITHIN_S = 20.0
_LAST_CHARACTERS = 300


class TemporaryServer:
    """A server of this process alone: behind a secret, and gone when the process is."""

    def __init__(self) -> None:
        """Start it, and set in `os.environ` what Prefect's client needs. Does not wait.

        Raises InputError beside a FastAPI with which it would answer nothing.
        """
        refuse_unlike_fastapi(version("prefect"), version("fastapi"))
        self.home = _writable_home()
        self.database = self.home / f"saelect-{version('prefect')}.db"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        secret = f"saelect:{secrets.token_urlsafe(24)}"
        fixed = {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_AUTH_STRING": secret,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_UI_ENABLED": "false",
            "PREFECT__SERVER_EPHEMERAL": "1",  # as Prefect starts its own: no background services
            "PREFECT__SERVER_FINAL": "1",
        }
        url = f"sqlite+aiosqlite:///{self.database}"
        chosen = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.port)],
            env={**chosen, **os.environ, **fixed},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
        )
        atexit.register(self._process.terminate)  # before Prefect's own, so it runs after them
        os.environ["PREFECT_HOME"] = str(self.home)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{self.port}/api"
        os.environ["PREFECT_API_AUTH_STRING"] = secret

    def wait(self) -> None:
        """Return once it answers. Raises InputError with its last words where it does not."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise InputError(
                    f"Prefect's temporary server did not start: {self._last_words()}",
                    file=self.database,
                    remedy="Move this file away, or set PREFECT_HOME to another folder, or name"
                    " a running server in PREFECT_API_URL.",
                )
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
        ended = self._process.poll() is not None
        silent = "it ended without a word" if ended else f"no answer in {READY_WITHIN_S:.0f} s"
        return (errors or lines or [silent])[-1][-_LAST_CHARACTERS:]


def refuse_unlike_fastapi(prefect: str, fastapi: str) -> None:
    """Raise InputError for a Prefect that fails at each request with a FastAPI so new.

    Requirements cannot say it: where something keeps starlette below 1, both are chosen together.
    """
    old, new = (tuple(map(int, re.findall(r"\d+", each)[:3])) for each in (prefect, fastapi))
    if old < (3, 7, 8) and new >= (0, 137):
        raise InputError(
            f"Prefect {prefect} does not work with FastAPI {fastapi}",
            remedy="Install an older one (`pip install 'fastapi<0.137'`), or Prefect 3.7.8 or"
            " later.",
        )


def start_prefect() -> Callable[[], None]:
    """Start a server unless one is set; returns what waits until it answers.

    Call it before Prefect's import. It prints which server is used, and hides Prefect's copy of
    the progress and errors that the command line prints itself.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    url = os.environ.get("PREFECT_API_URL") or _profile_url()
    say(f"  Prefect   {url or 'a temporary server'}")
    return partial(_refuse_unreachable, url) if url else TemporaryServer().wait


def _refuse_unreachable(url: str) -> None:
    """Raise InputError where nothing answers at the address; any answer will do."""
    try:
        urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=_ANSWER_WITHIN_S).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # Prefect has settings of its own for certificates
        raise InputError(
            f"the Prefect server does not answer: {reason}",
            field="PREFECT_API_URL",
            value=without_secrets(url),
            remedy="Start it, or unset PREFECT_API_URL (or choose another Prefect profile): a"
            " temporary server will do.",
        ) from None


def _profile_url() -> str | None:
    """The server that the user's profile names (`prefect cloud login`, `prefect config set`)."""
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or _home() / "profiles.toml")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        active = os.environ.get("PREFECT_PROFILE") or content["active"]
        return str(content["profiles"][active]["PREFECT_API_URL"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _home() -> Path:
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def _writable_home() -> Path:
    """Prefect's home, or a temporary folder where that cannot be written."""
    home = _home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except OSError:
        pass
    home = Path(tempfile.mkdtemp(prefix="saelect-prefect-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def _serve(port: int) -> None:
    """Run the server until it is terminated, or the process that started it is gone."""

    def end_with_parent() -> None:
        sys.stdin.buffer.read()  # returns when the other end of the pipe is closed
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
