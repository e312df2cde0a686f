"""The server process: Prefect's API and pages, and the reports and exports of the workspace."""

import base64
import hmac
import html
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from flows.server.settings import FILES_PATH
from storage.files.workspace import ENVIRONMENT_VARIABLE
from storage.report.page import SCRIPT, policy

# A page may ask this server only: a browser refuses everything else, fonts and beacons too.
PAGE_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss:;"
    " img-src 'self' data: blob:; frame-ancestors 'self'"
)
# What comes from data may not run anything, nor ask anybody; the reports' own script runs by hash.
FILE_POLICY = policy(SCRIPT) + "; img-src data:"


class WorkspaceFiles(StaticFiles):
    """Files of one folder of the workspace; a folder is listed."""

    async def get_response(self, path: str, scope: Any) -> Response:  # noqa: ANN401
        """A file, or the list of a folder; names that begin with a dot are not there."""
        parts = Path(path).parts
        if any(part.startswith(".") and part != "." for part in parts):
            raise HTTPException(404)
        full, found = self.lookup_path(path)
        if found is not None and Path(full).is_dir():
            if not scope["path"].endswith("/"):
                return RedirectResponse(scope["path"] + "/")
            response: Response = HTMLResponse(_listing(Path(full), path))
        else:
            response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = FILE_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _listing(folder: Path, path: str) -> str:
    entries = sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    rows = "".join(
        f'<tr><td><a href="{quote(e.name)}{"/" if e.is_dir() else ""}">{html.escape(e.name)}</a>'
        f"<td align=right>{'' if e.is_dir() else f'{e.stat().st_size:,} bytes'}"
        for e in entries
    )
    title = html.escape(f"{folder.parent.name}/{folder.name}" if path != "." else folder.name)
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:16px/1.6 sans-serif;margin:3em auto;max-width:46em;padding:0 1em}"
        "td{padding:.1em 2em .1em 0}</style>"
        f"<h1>{title}</h1><table>{rows or '<tr><td>Nothing here yet.'}</table>"
    )


async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Files need the password too; pages get the policy that keeps them on this machine."""
    auth = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    is_file = request.url.path.startswith(FILES_PATH + "/")
    if auth and is_file and not _is_allowed(request.headers.get("authorization", ""), auth):
        return PlainTextResponse(
            "Password needed.", 401, headers={"WWW-Authenticate": 'Basic realm="saelect"'}
        )
    response = await call_next(request)
    if response.headers.get("content-type", "").startswith("text/html"):
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    return response


def _is_allowed(header: str, auth: str) -> bool:
    expected = "Basic " + base64.b64encode(auth.encode()).decode()
    return hmac.compare_digest(header.encode(), expected.encode())


def create_app() -> Any:  # noqa: ANN401 - Prefect's own application
    """Prefect's application with our routes before its own."""
    import prefect
    from prefect.server.api.server import create_app as prefect_app

    # The newer page asks an outside host whatever one sets; it is not offered.
    prefect.__ui_v2_static_path__ = Path(os.devnull) / "none"
    app = prefect_app(final=True)
    root = Path(os.environ[ENVIRONMENT_VARIABLE])
    files = []
    for name in ("reports", "exports"):
        (root / name).mkdir(parents=True, exist_ok=True)
        files.append(Mount(f"/{name}", WorkspaceFiles(directory=root / name)))
    app.router.routes.insert(0, Mount(FILES_PATH, routes=files))
    app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
    return app


def main(host: str, port: int) -> None:
    """Serve until told to stop."""
    uvicorn.run(
        create_app(), host=host, port=port, log_level="warning", timeout_graceful_shutdown=2
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
