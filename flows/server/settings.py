"""Address, folder and secret of one server, and the environment of its processes."""

import base64
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows import SETTINGS
from flows.orchestration.prefect_settings import DATA_FOLDERS, FILES_URL, LIVE
from storage.files.workspace import ENVIRONMENT_VARIABLE, Workspace

POOL_NAME = "saelect"
WORKER_NAME = "serve"  # of the worker beside the server, as runs carry it
FILES_PATH = "/saelect"
SECRET = "SAELECT_SECRET"
PAGE = "PAGE"  # kind of creator of a run that was started from a page
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServerSettings:
    """One server of one workspace.

    host:     address to listen on.
    password: of the user `saelect`; None: a random one, kept in the server's folder.
    data:     folders that forms may name files of.
    """

    workspace: Workspace
    host: str
    port: int
    password: str | None = None
    runs_at_once: int = 2
    data: Sequence[Path] = ()

    @property
    def folder(self) -> Path:
        """Database, logs, secret and the locks of live runs, readable by the owner alone."""
        folder = self.workspace.root.resolve() / ".server"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        return folder

    @property
    def url(self) -> str:
        """Address for processes of this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "localhost") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def secret(self) -> str:
        """The password, or a random one that stays the same over restarts."""
        file = self.folder / "secret"
        if not (self.password or file.exists()):
            file.touch(mode=0o600, exist_ok=False)
            file.write_text(secrets.token_urlsafe(24), encoding="utf-8")
        return self.password or file.read_text(encoding="utf-8")


def auth_header(secret: str) -> dict[str, str]:
    """The header by which clients of the API identify themselves."""
    token = base64.b64encode(f"saelect:{secret}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


def environment(settings: ServerSettings) -> dict[str, str]:
    """The environment of server, worker and runs.

    Of another Prefect set-up of the user nothing applies but the logging: each workspace has its
    own home, database and pool.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_") or name.startswith("PREFECT_LOGGING_")
    }
    home = settings.folder
    fixed = {
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"{settings.url}/api",
        "PREFECT_CLIENT_CUSTOM_HEADERS": json.dumps(auth_header(settings.secret)),
        "PREFECT_CLIENT_MAX_RETRIES": "10",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": settings.url,
        "PREFECT_SERVER_LOG_RETRYABLE_ERRORS": "true",
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "20",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # Relative, so that it follows the browser through tunnels and proxies.
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        ENVIRONMENT_VARIABLE: str(settings.workspace.root.resolve()),
        SECRET: settings.secret,
        FILES_URL: FILES_PATH,
        LIVE: str(home / "live"),
        DATA_FOLDERS: os.pathsep.join(str(path.resolve()) for path in settings.data),
    }
    return {**SETTINGS, **inherited, **fixed}
