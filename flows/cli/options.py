"""Options and arguments that several commands share, and `key=value` strings as a mapping."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from selection.core.errors import InputError
from selection.core.numbers import plural
from storage.files.workspace import DEFAULT, ENVIRONMENT_VARIABLE, Workspace, chosen_root

DEFAULT_WORKSPACE = Path(DEFAULT)


def carry_on_forgetting(workspace: Path) -> Path:
    """The workspace, once a `saelect forget` that was stopped in it is done."""
    opened = Workspace(chosen_root(workspace))
    if opened.forget_journal.exists():
        from storage.audit.forget import finish

        if (done := finish(opened)) is not None:
            n = len(done.example_ids)
            words = f"a `forget` of {plural(n, 'sample')} had been stopped; it is done now"
            sys.stderr.write(f"saelect: {words}\n")
    return workspace


WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar=ENVIRONMENT_VARIABLE,
        help="Folder of all results.",
        callback=carry_on_forgetting,
    ),
]
SelectionArgument = Annotated[
    str, typer.Argument(help="Name, id, prefix of an id, or `latest`.", metavar="SELECTION")
]
ExampleArgument = Annotated[
    str, typer.Argument(help="Example id, a prefix of it, or the id in the data.")
]
ConfigArgument = Annotated[
    str, typer.Argument(help="Config file, or the name of a preset, such as `demo`.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Replace a key: --set budget.examples=500"),
]


def parse_overrides(items: list[str] | None) -> dict[str, str]:
    """`key=value` strings as a mapping. Raises InputError for any other form."""
    overrides = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InputError(
                "not of the form key=value",
                field="--set",
                value=item,
                remedy="For example: --set budget.examples=500",
            )
        overrides[key] = value
    return overrides
