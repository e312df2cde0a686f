"""Runs that a page starts are told from those of programs by the cookie of the page."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from prefect.server.api.dependencies import get_created_by

from flows.server.app import _name_pages, cookie_name

AUTOMATION = {
    "prefect-automation-id": "7b8d1f0e-0000-4000-8000-000000000000",
    "prefect-automation-name": "b3Vycw==",
}


@pytest.mark.parametrize(
    ("cookies", "headers", "expected"),
    [
        ({cookie_name(4999): "x"}, {}, ("PAGE", "a page")),
        ({cookie_name(5000): "x"}, {}, None),  # of another server on this host
        ({}, {"authorization": "Basic eA=="}, None),
        ({}, AUTOMATION, ("AUTOMATION", "ours")),
    ],
)
def test_who_starts_a_run(
    cookies: dict[str, str], headers: dict[str, str], expected: tuple[str, str] | None
) -> None:
    api = FastAPI()

    @api.get("/creator")
    def creator(made_by: Annotated[Any, Depends(get_created_by)]) -> Any:
        return made_by

    _name_pages(api, cookie_name(4999))
    answer = TestClient(api, cookies=cookies).get("/creator", headers=headers).json()
    assert (answer and (answer["type"], answer["display_value"])) == expected
