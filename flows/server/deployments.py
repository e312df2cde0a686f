"""Work pool and deployments on the server of `saelect serve`.

Shipped values fill only what nobody set: a value is replaced by a newer version's only if it is
still the one that was shipped before.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from flows.server import flows
from flows.server.settings import POOL_NAME

DEMO = {
    "pool": "demo:pool.jsonl",
    "exemplars": "demo:exemplars.jsonl",
    "budget": {"unit": "examples", "amount": 40},
    "preset": "demo",
}
DEPLOYMENTS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "select-data": ("select_data", {}),
    "select-data-demo": ("select_data", DEMO),
    "select-data-from-config": ("select_from_config", {}),
    "plan": ("plan", {}),
    "prepare-pool": ("prepare_pool", {}),
    "train-sae": ("train_sae", {}),
    "embed-pool": ("embed_pool", {}),
    "index-pool": ("index_pool", {}),
    "bench-retrieval": ("bench_retrieval", {}),
    "export-selection": ("export_selection_flow", {}),
}
"""Name of a deployment -> function of `flows.server.flows`, values filled in on the form."""


def job_template(work_folder: Path) -> dict[str, Any]:
    """A template whose command, environment and folder are fixed: no caller can set them."""
    return {
        "job_configuration": {
            "command": f"{sys.executable} -m prefect.engine",
            "env": {},
            "labels": {},
            "name": "{{ name }}",
            "stream_output": True,
            "working_dir": str(work_folder),
        },
        "variables": {
            "type": "object",
            "properties": {"name": {"type": "string", "title": "Name"}},
            "additionalProperties": False,
        },
    }


def register(work_folder: Path, record: Path) -> list[str]:
    """Create or update work pool and deployments; returns the changes in words.

    record: file of the values that were shipped last.
    """
    shipped = json.loads(record.read_text()) if record.exists() else {}
    changes: list[str] = []
    with get_client(sync_client=True) as client:
        pool: dict[str, Any] = {"base_job_template": job_template(work_folder)}
        try:
            newer = outdated(client.read_work_pool(POOL_NAME), pool, shipped.get("pool", {}))
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=POOL_NAME, type="process", **pool))
        else:
            if newer:
                client.update_work_pool(POOL_NAME, WorkPoolUpdate(**newer))
                changes.append("work pool: job template")
        shipped["pool"] = pool
        for name, (function, parameters) in DEPLOYMENTS.items():
            flow = getattr(flows, function)
            values: dict[str, Any] = {
                "description": flow.description,
                "parameters": dict(parameters),
                "tags": ["saelect"],
            }
            form: dict[str, Any] = {
                "entrypoint": f"flows.server.flows.{function}",
                "parameter_openapi_schema": {
                    **parameter_schema(flow).model_dump(),
                    "additionalProperties": False,  # Prefect would accept a misspelt field.
                },
                "enforce_parameter_schema": True,
            }
            try:
                present = client.read_deployment_by_name(f"{flow.name}/{name}")
            except ObjectNotFound:
                flow_id = client.create_flow_from_name(flow.name)
                client.create_deployment(
                    flow_id=flow_id, name=name, work_pool_name=POOL_NAME, **values, **form
                )
            else:
                newer = outdated(present, values, shipped.get(name, {})) | outdated(present, form)
                if newer:
                    client.update_deployment(present.id, DeploymentUpdate(**newer))
                    changes.append(f"{name}: {', '.join(newer)}")
            shipped[name] = values
    record.write_text(json.dumps(shipped), encoding="utf-8")
    return changes


def outdated(
    present: Any, values: Mapping[str, Any], shipped: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The values that are others on the server.

    shipped: by an earlier version; what is not one of these any more was set by people, and stays.
    """
    return {
        key: value
        for key, value in values.items()
        if getattr(present, key) != value
        and (shipped is None or getattr(present, key) == shipped.get(key))
    }


def main(work_folder: str, record: str) -> None:
    """Register, and print the changes, one a line."""
    sys.stdout.write("".join(f"{line}\n" for line in register(Path(work_folder), Path(record))))
    sys.stdout.flush()
    os._exit(0)  # Prefect's daemon threads would be waited for.


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
