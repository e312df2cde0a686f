"""A stand-in of the Hugging Face hub: the requests that `huggingface_hub` makes for an upload.

It keeps datasets as lists of commits, each with all its files. `refuse` makes it answer a request
with an error, or hang up.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import yaml

USER = "alice"


@dataclass
class Dataset:
    """A dataset: whether it is private, and (commit, path -> bytes) from the oldest on."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1] if self.commits else {}

    def add(self, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(repr((len(self.commits), files)).encode()).hexdigest()
        self.commits.append((oid, files))
        return oid


@dataclass
class Hub:
    """The state of the stand-in.

    requests: method and path of each. refuse: part of a path -> status (0: hang up) and text.
    """

    token: str
    datasets: dict[str, Dataset] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, value: object, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for part, (status, text) in hub.refuse.items():
            if part in path:
                if status:
                    self._answer({"error": text}, status, X_Error_Message=text)
                self.close_connection = True
                return
        if path.startswith("/lfs/"):
            hub.stored[path.rpartition("/")[2]] = body
            return self._answer({})
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._answer({"error": "Invalid user token."}, 401)
        if answer := self._of_the_hub(path, body):
            return self._answer(answer)
        words = path.removeprefix("/api").strip("/").split("/")
        name = "/".join(words[1:3])
        if name not in hub.datasets:
            return self._answer({"error": "no"}, 404, X_Error_Code="RepoNotFound")
        return self._of_dataset(name, words[3:], body)

    def _of_the_hub(self, path: str, body: bytes) -> dict[str, object]:
        """The answer to what is not about one dataset that exists; empty for anything else."""
        hub = self.hub
        if path == "/api/whoami-v2":
            return {"type": "user", "name": USER, "auth": {}}
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            assert asked["type"] == "dataset"
            private = asked.get("private", asked.get("visibility") == "private")
            name = f"{asked['organization']}/{asked['name']}"
            hub.datasets[name] = Dataset(private)
            hub.datasets[name].add({".gitattributes": b"*.parquet filter=lfs\n"})
            return {"url": f"{hub.url}/datasets/{name}", "name": name}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for each in objects:
                each["actions"] = {"upload": {"href": f"{hub.url}/lfs/{each['oid']}"}}
            return {"objects": objects, "transfer": "basic"}
        return {}

    do_GET = do_POST = do_PUT = do_HEAD = _handle

    def _of_dataset(self, name: str, words: list[str], body: bytes) -> None:
        data = self.hub.datasets[name]
        if not words or words[0] == "revision":
            siblings = [{"rfilename": path} for path in sorted(data.files)]
            info = {"id": name, "private": data.private, "sha": data.commits[-1][0]}
            return self._answer({**info, "siblings": siblings, "tags": []})
        if words[0] == "resolve":
            path = "/".join(words[2:])
            if path not in data.files:
                return self._answer({}, 404, X_Error_Code="EntryNotFound")
            content = data.files[path]
            oid = hashlib.sha256(content).hexdigest()
            return self._answer(content, ETag=f'"{oid}"', X_Repo_Commit=data.commits[-1][0])
        if words[0] == "preupload":
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith((".parquet", ".arrow"))
                    else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]  # fmt: skip
            return self._answer({"files": files})
        assert words[0] == "commit"
        return self._commit(name, [json.loads(line) for line in body.splitlines()])

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        data = self.hub.datasets[name]
        files = dict(data.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                if value.get("parentCommit") not in (None, data.commits[-1][0]):
                    return self._answer({"error": "it has moved on"}, 412)
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        oid = data.add(files)
        self._answer(
            {"commitUrl": f"{self.hub.url}/datasets/{name}/commit/{oid}", "commitOid": oid}
        )


@contextmanager
def hub_server(token: str) -> Iterator[Hub]:
    """The stand-in on a free port of this machine."""
    hub = Hub(token)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
