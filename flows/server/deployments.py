"""What `saelect serve` offers: work pool, deployments with their pages, and the automation."""

import inspect
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

from flows.server.settings import HEARTBEAT_SECONDS, POOL_NAME

START_SECONDS = 180.0
LOST_SECONDS = 3 * HEARTBEAT_SECONDS
AUTOMATION = "saelect: runs whose heartbeat stopped"


@dataclass(frozen=True)
class Offer:
    """One deployment.

    function:   of `flows.server.flows`.
    parameters: what the page shows filled in.
    """

    name: str
    function: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    of_flow: str | None = None

    @property
    def entrypoint(self) -> str:
        """Where the flow is, as an import path."""
        return f"flows.server.flows.{self.function}"


_DEMO = {
    "pool": "demo:pool.jsonl",
    "exemplars": "demo:exemplars.jsonl",
    "budget": {"unit": "examples", "amount": 40},
    "preset": "demo",
}

OFFERS = (
    Offer("select-data", "select_data"),
    Offer("select-data-demo", "select_data", _DEMO),
    Offer("select-data-from-config", "select_from_config"),
    Offer("plan", "plan"),
    Offer("prepare-pool", "prepare_pool"),
    Offer("train-sae", "train_sae"),
    Offer("embed-pool", "embed_pool"),
    Offer("bench-retrieval", "bench_retrieval"),
    Offer("export-selection", "export_selection_flow"),
)


def register(work_folder: Path) -> None:
    """Make or renew work pool, deployments and automation on the server of the environment."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(
                WorkPoolCreate(name=POOL_NAME, type="process", base_job_template=template)
            )
        except ObjectAlreadyExists:
            client.update_work_pool(POOL_NAME, WorkPoolUpdate(base_job_template=template))
        for offer in OFFERS:
            _deploy(client, offer, work_folder)
        _automate(client)


def _deploy(client: Any, offer: Offer, work_folder: Path) -> None:  # noqa: ANN401 - untyped
    from flows.server import flows as flows_module

    flow = getattr(flows_module, offer.function)
    schema = page_schema(flow)
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=offer.name,
        parameters=dict(offer.parameters),
        description=flow.description,
        work_pool_name=POOL_NAME,
        tags=["saelect"],
        entrypoint=offer.entrypoint,
        path=str(work_folder),
        parameter_openapi_schema=schema,
        enforce_parameter_schema=True,
        job_variables={
            "command": f"{sys.executable} -m flows.server.worker",
            "working_dir": str(work_folder),
        },
    )


def page_schema(flow: Any) -> dict[str, Any]:  # noqa: ANN401
    """What the page asks, with titles and descriptions, and closed at the top level too.

    A field that may be empty shows as a plain field, not as a choice between a value and None.
    """
    schema: dict[str, Any] = flow.parameters.model_dump()
    schema["additionalProperties"] = False  # Prefect would accept a misspelt field, then crash.
    for name, parameter in inspect.signature(flow.fn).parameters.items():
        for info in get_args(parameter.annotation)[1:]:
            told = {"title": info.title, "description": info.description}
            schema["properties"][name].update({k: v for k, v in told.items() if v})
        title = schema["properties"][name]["title"]
        schema["properties"][name]["title"] = title[:1].upper() + title[1:]
    for model in (schema, *schema["definitions"].values()):
        for name, prop in model.get("properties", {}).items():
            model["properties"][name] = _plain(prop)
    for prop in schema["properties"].values():
        # The page would send the empty fields of a default as null, which a plain field is not.
        if isinstance(prop.get("default"), dict):
            prop["default"] = {k: v for k, v in prop["default"].items() if v is not None}
    return schema


def _plain(prop: dict[str, Any]) -> dict[str, Any]:
    """The only kind that is not null, where an empty field of it is sent as nothing."""
    kinds = [kind for kind in prop.get("anyOf", ()) if kind.get("type") != "null"]
    if len(kinds) != 1 or len(prop["anyOf"]) != 2 or prop.get("default") is not None:
        return prop
    kind = kinds[0]
    # The page sends `false` for an untouched switch and `[]` for an untouched list.
    if "$ref" not in kind and kind.get("type") not in ("string", "number", "integer"):
        return prop
    rest = {key: value for key, value in prop.items() if key not in ("anyOf", "default")}
    return {**kind, **rest}


def _automate(client: Any) -> None:  # noqa: ANN401
    """Mark runs crashed whose heartbeat stopped: those of other hosts, which nobody here sees."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    rule = AutomationCore(
        name=AUTOMATION,
        description="A run that sends no heartbeat is crashed; run it again, it resumes.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={
                "prefect.flow-run.heartbeat",
                "prefect.flow-run.Completed",
                "prefect.flow-run.Failed",
                "prefect.flow-run.Cancelled",
                "prefect.flow-run.Crashed",
            },
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=LOST_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message="No heartbeat: the run's machine is gone."
            )
        ],
    )
    known = client.request("POST", "/automations/filter", json={}).json()
    if AUTOMATION not in {automation["name"] for automation in known}:
        client.request("POST", "/automations/", json=rule.model_dump(mode="json"))


def main(work_folder: str) -> None:
    """Import what is offered while the server starts, wait for it, and register."""
    import httpx
    from prefect.settings import get_current_settings

    from flows.server import flows as flows_module

    del flows_module
    url = f"{get_current_settings().api.url}/health"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).is_success:
                break
        except httpx.HTTPError:
            time.sleep(0.2)
    register(Path(work_folder))
    os._exit(0)  # Prefect's daemon threads would be waited for.


if __name__ == "__main__":
    main(sys.argv[1])
