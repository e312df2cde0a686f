"""What `saelect serve` tells its processes: where the server is, and that nothing leaves."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.orchestration.prefect_settings import FILES_URL, LIVE
from storage.files.workspace import ENVIRONMENT_VARIABLE, Workspace

POOL_NAME = "saelect"
FILES_PATH = "/saelect"
HEARTBEAT_SECONDS = 30  # Prefect's minimum.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Place:
    """One server: its workspace, address and password.

    host: address that is bound; anything but loopback needs a password.
    """

    workspace: Workspace
    host: str
    port: int
    password: str | None = None
    runs_at_once: int = 2

    @property
    def folder(self) -> Path:
        """Database, logs and the marks of live runs."""
        return self.workspace.root / ".server"

    @property
    def live(self) -> Path:
        """One locked file per run that is alive."""
        return self.folder / "live"

    @property
    def url(self) -> str:
        """Where processes of this machine reach the server."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "localhost") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def auth(self) -> str | None:
        """Prefect's auth string, `user:password`."""
        return None if self.password is None else f"saelect:{self.password}"


def environment(place: Place, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of server, worker and runs; what the user has set wins, but the address."""
    home = place.folder.resolve()
    chosen = {
        "PREFECT_HOME": str(home),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_CLIENT_MAX_RETRIES": "10",
        "PREFECT_API_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    fixed = {
        "PREFECT_API_URL": f"{place.url}/api",
        # Relative, so that it follows the browser through tunnels and proxies.
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        ENVIRONMENT_VARIABLE: str(place.workspace.root.resolve()),
        FILES_URL: FILES_PATH,
        LIVE: str(place.live.resolve()),
        "PYTHONUNBUFFERED": "1",
    }
    if place.auth:
        fixed |= {
            "PREFECT_API_AUTH_STRING": place.auth,
            "PREFECT_SERVER_API_AUTH_STRING": place.auth,
        }
    found = {**chosen, **os.environ, **fixed, **(own or {})}
    # The folder of whoever started `serve` must stay importable when it is not installed.
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, found.get("PYTHONPATH", "").split(os.pathsep))]
    found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return found
