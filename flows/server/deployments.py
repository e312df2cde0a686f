"""Work pool and deployments on the server of `saelect serve`, from the packaged `prefect.yaml`.

What people set stays: description, tags, parameters and the pool's template are written once, when
a deployment is made. Its form is a part of the program and follows the version.
"""

from contextlib import suppress
from importlib.resources import files
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema

from flows.server import forms
from flows.server.settings import POOL_NAME

JOB_TEMPLATE: dict[str, dict[str, Any]] = {
    "job_configuration": {"command": "python3 -m prefect.engine", "working_dir": "."},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
"""Command, environment and folder are those of the worker: no caller can set them."""


def listed() -> list[dict[str, Any]]:
    """The deployments of `prefect.yaml`."""
    text = (files("flows.server") / "prefect.yaml").read_text(encoding="utf-8")
    deployments: list[dict[str, Any]] = yaml.safe_load(text)["deployments"]
    return deployments


def form_of(flow: str) -> dict[str, Any]:
    """What the deployments of a flow ask for, and the check of it."""
    schema = parameter_schema(forms.FORMS[flow]).model_dump()
    return {
        # Prefect would accept a misspelt field.
        "parameter_openapi_schema": {**schema, "additionalProperties": False},
        "enforce_parameter_schema": True,
    }


def register(client: SyncPrefectClient) -> list[str]:
    """Create what is missing of pool and deployments; returns the changes in words."""
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(
            WorkPoolCreate(name=POOL_NAME, type="process", base_job_template=JOB_TEMPLATE)
        )
    changes = []
    for given in listed():
        name, entrypoint = given["name"], given["entrypoint"]
        flow = entrypoint.split(".")[-1].replace("_", "-")
        form = {"entrypoint": entrypoint, **form_of(flow)}
        try:
            present = client.read_deployment_by_name(f"{flow}/{name}")
        except ObjectNotFound:
            once = {key: given.get(key) for key in ("description", "parameters", "tags")}
            flow_id = client.create_flow_from_name(flow)
            client.create_deployment(flow_id, name, work_pool_name=POOL_NAME, **once, **form)
        else:
            if any(getattr(present, key) != value for key, value in form.items()):
                client.update_deployment(present.id, DeploymentUpdate(**form))
                changes.append(f"{name}: its form")
    return changes
