"""The guides say what the program says: messages, links and commands are real."""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from typer.testing import CliRunner

from flows.cli import reference
from flows.cli.main import app
from flows.config.reference import config_keys
from tests import diagram
from tests.docs_commands import blocks, commands_of, programs_of

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def source_text() -> str:
    files = [p for room in ("selection", "storage", "flows") for p in (ROOT / room).rglob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)  # Strings that go over two lines are one message.


def test_every_message_of_the_failures_page_is_said_somewhere() -> None:
    text = (ROOT / "docs/reference/failures.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", text, re.M)
    assert len(messages) > 30
    source = source_text().lower()
    assert [message for message in messages if message.lower() not in source] == []


def test_the_guide_to_the_report_follows_its_headings() -> None:
    guide = (ROOT / "docs/guides/reading-the-report.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (.+)$", guide, re.M)
    templates = ROOT / "storage" / "report" / "templates"

    def headings(*names: str) -> list[str]:
        texts = [(templates / f"{name}.html.j2").read_text(encoding="utf-8") for name in names]
        return [h.split(" {{")[0] for h in re.findall(r"<h2>(.+?)</h2>", "\n".join(texts))]

    of_one, of_two = headings("report", "provenance"), headings("compare")
    at_two = found.index("Configuration differences")
    assert found[:at_two] == ["The first screen", *of_one]
    assert set(found[at_two:]) == set(of_two) - {"Scores"}
    for line in re.findall(r"<dt>(\w+)</dt>", (templates / "first_screen.html.j2").read_text()):
        assert f"| **{line}** |" in guide


def test_commands_of_the_guides_are_known_to_the_command_line() -> None:
    found = [command for page in PAGES for command in commands_of(page)]
    assert len(found) >= 20
    for command in found:
        words = shlex.split(command, comments=True)
        assert words[0] == "saelect"
        help_text = CliRunner(env={"COLUMNS": "200"}).invoke(app, [words[1], "--help"])
        assert help_text.exit_code == 0, command
        for word in words[2:]:
            if word.startswith("-") and not word.lstrip("-").isdigit():
                assert word.split("=")[0] in help_text.output, command


def test_written_pages_are_current() -> None:
    kept = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")
    assert kept == reference.page(), (
        "run: python -m flows.cli.reference docs/reference/command-line.md"
    )
    assert diagram.FILE.read_text() == diagram.svg(), "run: python -m tests.diagram"


def test_python_of_the_pages_is_a_program() -> None:
    programs = [program for page in PAGES for program in programs_of(page)]
    assert len(programs) >= 3
    assert [ast.parse(program) for program in programs]


def dotted(config: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_yaml_of_the_pages_has_keys_of_the_config() -> None:
    configs = [yaml.safe_load(block) for page in PAGES for block in blocks(page, "yaml")]
    assert len(configs) >= 2
    names = {key.name.replace("[]", "") for key in config_keys()}
    names |= {name.rpartition(".")[0] for name in names}  # A section may be one bare value.
    assert [key for config in configs for key in dotted(config) if key not in names] == []
