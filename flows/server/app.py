"""The server process: Prefect's API and pages, reports and exports of the workspace, one door.

Whoever reaches the API can run code here, so every request needs the secret, an own Host name and,
from a browser, an own origin.
"""

import hmac
import ipaddress
import os
import socket
import sys
from http.cookies import SimpleCookie
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from flows.orchestration.prefect_settings import LIVE
from flows.server.liveness import keep
from flows.server.settings import FILES_PATH, LOOPBACK, PAGE, SECRET, auth_header
from storage.files.workspace import ENVIRONMENT_VARIABLE
from storage.report.page import SCRIPT, policy

LOGIN_PATH = f"{FILES_PATH}/login"
# A page may ask this server only: a browser refuses everything else, fonts and beacons too.
PAGE_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss:;"
    " img-src 'self' data: blob:; frame-ancestors 'self'"
)
# Files made from data may run nothing and ask nobody; the reports' own script runs by its hash.
FILE_POLICY = policy(SCRIPT) + "; img-src data:"
LOGIN_PAGE = (
    "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    "<title>saelect</title><style>body{font:16px/1.6 sans-serif;margin:3em}</style><h1>saelect</h1>"
    f"<form method=post action={LOGIN_PATH}><label>Password <input name=key type=password"
    " autofocus></label> <button>Open</button></form><p>`saelect serve` prints a link that needs"
    " no password.</p>"
)


def cookie_name(port: int) -> str:
    """Name of the cookie with the secret; hosts share cookies, ports do not share servers."""
    return f"saelect-{port}"


class Door:
    """ASGI middleware: Host and Origin are this server's, and the client knows the secret."""

    def __init__(self, app: ASGIApp, secret: str, port: int) -> None:
        """secret: of the user `saelect`. port: of the server."""
        self.app, self.secret, self.cookie = app, secret, cookie_name(port)
        self.token = auth_header(secret)["Authorization"].removeprefix("Basic ")
        extra = os.environ.get("SAELECT_ALLOWED_HOSTS", "").split(",")
        self.hosts = {*LOOPBACK, socket.gethostname(), socket.getfqdn(), *filter(None, extra)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse or log in."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self.refusal(headers)
        answer: ASGIApp = PlainTextResponse(refusal or "Password needed.", 403 if refusal else 401)
        if refusal is None and scope["path"] != LOGIN_PATH and self.knows_secret(headers):
            answer, send = self.app, _with_policy(send)
        elif scope["type"] == "websocket":
            answer = WebSocketClose(1008)
        elif refusal is None and scope["path"] == LOGIN_PATH:
            answer = await self.log_in(Request(scope, receive))
        elif refusal is None and "text/html" in headers.get("accept", ""):
            answer = HTMLResponse(LOGIN_PAGE, 401)
        await answer(scope, receive, send)

    def refusal(self, headers: Headers) -> str | None:
        """Why a request is not this server's own page's, or None."""
        host = headers.get("host", "")
        if not self.is_own(urlsplit(f"//{host}").hostname or ""):
            return "This Host name is not allowed; see SAELECT_ALLOWED_HOSTS."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "Requests from pages of another origin are not allowed."
        return None

    def is_own(self, name: str) -> bool:
        """Whether a Host name is an address or a name of this machine: no other can rebind."""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.hosts
        return True

    def knows_secret(self, headers: Headers) -> bool:
        """Whether header or cookie carry the secret."""
        cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        sent = headers.get("authorization", "").removeprefix("Basic ")
        given = (cookie.value if cookie else "", sent)
        return any(hmac.compare_digest(each.encode(), self.token.encode()) for each in given)

    async def log_in(self, request: Request) -> Response:
        """Exchange the secret, in the link or the form, for a cookie."""
        form = parse_qs((await request.body()).decode(errors="replace"))
        key = request.query_params.get("key") or form.get("key", [""])[0]
        if not hmac.compare_digest(key.encode(), self.secret.encode()):
            return HTMLResponse(LOGIN_PAGE, 401)
        response = RedirectResponse("/deployments", 303)
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
        return response


def _with_policy(send: Send) -> Send:
    """Add the policy that keeps pages on this server to answers in HTML."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if headers.get("content-type", "").startswith("text/html"):
                headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        await send(message)

    return sending


class WorkspaceFiles(StaticFiles):
    """Reports and exports of the workspace; hidden names are not served."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file."""
        folder, *names = Path(path).parts or [""]
        if folder not in ("reports", "exports") or any(name.startswith(".") for name in names):
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = FILE_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _queue_writers() -> None:
    """Let transactions of Prefect's SQLite database wait for each other.

    One that reads before it writes fails at once ("database is locked", 503) if another one wrote
    meanwhile; one that announces the writing at its beginning waits for its turn.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration as Sqlite

    begin = Sqlite.begin_transaction

    def begin_immediately(self: Sqlite, session: Any, with_for_update: bool = False) -> Any:
        return begin(self, session, with_for_update=True)

    Sqlite.begin_transaction = begin_immediately  # type: ignore[method-assign]


def _name_pages(api: Any, cookie: str) -> None:
    """Let runs that a page starts say so; a program sends the secret in a header, not as a cookie.

    api: Prefect's application of the API.
    """
    from prefect.server.api.dependencies import get_created_by
    from prefect.server.schemas.core import CreatedBy

    def creator(request: Request) -> Any:
        if cookie in request.cookies:
            return CreatedBy(type=PAGE, display_value="a page")
        header: Any = request.headers.get
        return get_created_by(header("prefect-automation-id"), header("prefect-automation-name"))

    api.dependency_overrides[get_created_by] = creator


def create_app(port: int) -> Door:
    """Prefect's application with our files before its own pages, behind the door."""
    import prefect
    from prefect.server.api.server import create_app as prefect_app

    _queue_writers()
    # The newer page asks an outside host whatever one sets; it is not offered.
    prefect.__ui_v2_static_path__ = Path(os.devnull) / "none"
    app: Any = prefect_app(final=True)
    _name_pages(app.api_app, cookie_name(port))
    files = WorkspaceFiles(directory=os.environ[ENVIRONMENT_VARIABLE])
    app.router.routes.insert(0, Mount(FILES_PATH, files))
    # Around the application, not in it: automations call it within this process, without a door.
    return Door(app, os.environ[SECRET], port)


def main(host: str, port: int, ready: str) -> None:
    """Serve until SIGTERM. ready: file that tells when the deployments are there."""
    watch = Thread(target=keep, args=(Path(os.environ[LIVE]), Path(ready)), daemon=True)
    watch.start()
    uvicorn.run(
        create_app(port), host=host, port=port, log_level="warning", timeout_graceful_shutdown=2
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
