"""`prefect.yaml` on another server: deploy, start Prefect's own worker, run, compare forms."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from flows.server.deployments import form_of, listed
from tests.server_harness import ENDED, free_port

ROOT = Path(__file__).resolve().parent.parent
RUN_S = 600.0


def deploy_and_run(folder: Path, pool: Path) -> None:
    """A server, a pool and a worker of Prefect's own; exits with a reason where it breaks."""
    folder.mkdir()
    port = free_port()
    variables = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "SAELECT_WORKSPACE": str(folder / "workspace"),
        "SAELECT_DATA_FOLDERS": str(pool.parent),
        "PYTHONPATH": str(ROOT),
    }
    api = httpx.Client(base_url=variables["PREFECT_API_URL"], timeout=30)
    started = []
    try:
        started.append(prefect(folder, variables, "server", "start", "--port", str(port)))
        wait_for(api)
        for arguments in (
            ["work-pool", "create", "saelect", "--type", "process"],
            ["--no-prompt", "deploy", "--all", "--prefect-file", str(ROOT / "prefect.yaml")],
        ):
            prefect(folder, variables, *arguments, cwd=ROOT).wait(120)
        started.append(prefect(folder, variables, "worker", "start", "--pool", "saelect"))
        compare_forms(api)
        run(api, "prepare-pool/prepare-pool", {"pool": str(pool)})
        if not list((folder / "workspace" / "pools").glob("*/manifest.json")):
            raise SystemExit("e2e: the worker did not use the workspace of SAELECT_WORKSPACE")
        sys.stdout.write("e2e: prefect.yaml: same forms, and a run of Prefect's own worker\n")
    except BaseException:
        sys.stdout.write((folder / "prefect.log").read_text()[-3000:])
        raise
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def prefect(
    folder: Path, variables: Mapping[str, str], *arguments: str, cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """A command of Prefect, started in a folder that knows nothing of saelect."""
    with (folder / "prefect.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            env=dict(variables),
            cwd=cwd or folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_for(api: httpx.Client) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            if api.get("/health").is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit("e2e: the second server did not start")


def compare_forms(api: httpx.Client) -> None:
    """Every deployment asks there what it asks under `saelect serve`."""
    for given in listed():
        name, flow = given["name"], given["entrypoint"].split(".")[-1].replace("_", "-")
        there = api.get(f"/deployments/name/{flow}/{name}").raise_for_status().json()
        form = json.loads(json.dumps(form_of(flow)["parameter_openapi_schema"]))
        other = there["parameter_openapi_schema"]
        if there["description"] != given["description"] or any(
            (other.get(part) or None) != (form[part] or None)
            for part in ("properties", "required", "definitions")
        ):
            raise SystemExit(f"e2e: the form of {name} differs on the second server: {other}")


def run(api: httpx.Client, deployment: str, parameters: Mapping[str, object]) -> None:
    """Start a run and wait until it completes."""
    found = api.get(f"/deployments/name/{deployment}").raise_for_status().json()
    made = (
        api.post(f"/deployments/{found['id']}/create_flow_run", json={"parameters": parameters})
        .raise_for_status()
        .json()
    )
    state: dict[str, Any] = made["state"]
    deadline = time.monotonic() + RUN_S
    while state["type"] not in ENDED and time.monotonic() < deadline:
        time.sleep(1)
        state = api.get(f"/flow_runs/{made['id']}").raise_for_status().json()["state"]
    if state["type"] != "COMPLETED":
        raise SystemExit(f"e2e: on the second server: {state['type']} ({state.get('message')})")
