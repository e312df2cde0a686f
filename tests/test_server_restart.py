"""What people set on the server of `saelect serve` outlives a restart."""

from pathlib import Path
from typing import Any

import pytest

from tests.server_harness import Served, serving

PREPARE = "prepare-pool/prepare-pool"
AUTOMATION = {
    "name": "ours",
    "trigger": {
        "type": "event",
        "posture": "Reactive",
        "expect": ["prefect.flow-run.Failed"],
        "threshold": 1,
        "within": 0,
    },
    "actions": [{"type": "do-nothing"}],
}


def set_by_people(server: Served) -> None:
    """A schedule, limits, an automation, and other values than those that are shipped."""
    path = f"/deployments/{server.deployment(PREPARE)['id']}"
    values = {"description": "Ours.", "tags": ["team"], "concurrency_limit": 3, "paused": True}
    server.ask("PATCH", path, {**values, "parameters": {"pool": "p.jsonl"}})
    server.ask("POST", f"{path}/schedules", [{"schedule": {"cron": "0 6 * * *"}, "active": True}])
    server.ask("PATCH", "/work_pools/saelect", {"concurrency_limit": 5})
    server.ask("POST", "/v2/concurrency_limits/", {"name": "gpus", "limit": 2})
    server.ask("POST", "/automations/", AUTOMATION)


def as_set(server: Served) -> dict[str, Any]:
    """The same things as the server has them."""
    deployment = server.deployment(PREPARE)
    names = ("description", "tags", "parameters", "paused")
    limit = deployment.get("global_concurrency_limit") or {}
    return {
        **{name: deployment[name] for name in names},
        "schedules": [each["schedule"]["cron"] for each in deployment["schedules"]],
        "runs of the deployment": limit.get("limit"),
        "runs of the pool": server.ask("GET", "/work_pools/saelect")["concurrency_limit"],
        "gpus": server.ask("GET", "/v2/concurrency_limits/gpus")["limit"],
        "automations": [each["name"] for each in server.ask("POST", "/automations/filter", {})],
    }


@pytest.mark.slow
def test_a_restart_keeps_what_people_set(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        set_by_people(server)
        before = as_set(server)
    with serving(tmp_path) as server:
        assert as_set(server) == before
        shipped = server.deployment("select-data/select-data-demo")["parameters"]
    assert before == {
        "description": "Ours.",
        "tags": ["team"],
        "parameters": {"pool": "p.jsonl"},
        "paused": True,
        "schedules": ["0 6 * * *"],
        "runs of the deployment": 3,
        "runs of the pool": 5,
        "gpus": 2,
        "automations": ["ours"],
    }
    assert shipped["preset"] == "demo"
