"""All commands with their arguments and options, for docs/reference/command-line.md.

`python -m flows.cli.reference docs/reference/command-line.md` writes the page.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from flows.cli.main import app
from storage.files.atomic import write_bytes

_HEAD = """# Command line

Every command, as `saelect COMMAND --help` has it. A mistake in what you gave is one sentence and
exit code 2. Ctrl-C ends with 130 and SIGTERM with 75; the same command resumes where it was.

This page is written by `python -m flows.cli.reference docs/reference/command-line.md`.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([_HEAD, *_sections(get_command(app), "saelect")])


def _sections(group: Any, path: str) -> Iterator[str]:
    """A section for each command of a group of Typer's, and for those of the groups in it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _sections(command, f"{path} {name}")
        elif not command.hidden:
            yield _section(command, f"{path} {name}")


def _section(command: Any, path: str) -> str:
    given = [each for each in command.params if each.name != "help" and not each.hidden]
    arguments = [_name(each) for each in given if each.param_type_name == "argument"]
    usage = " ".join([path, *arguments, *(["[OPTIONS]"] if len(arguments) < len(given) else [])])
    parts = [f"## {path}\n\n{_in_one_line(command.help)}\n\n    {usage}\n"]
    if given:
        rows = "".join(_row(each) for each in given)
        parts.append(f"| argument or option | default | what |\n|---|---|---|\n{rows}")
    return "\n".join(parts)


def _row(parameter: Any) -> str:
    value = parameter.default
    default = "required" if parameter.required else ""
    if isinstance(value, (str, int, float, Path)) and value not in (False, ""):
        default = f"`{value}`"
    cells = (f"`{_name(parameter)}`", default, _in_one_line(parameter.help))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _name(parameter: Any) -> str:
    """As it is typed: `SELECTION`, or `--workspace, -w`."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _in_one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("<", "&lt;")


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), page().encode())
