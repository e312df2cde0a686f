"""Commands on a workspace with a damaged file answer, or refuse with a sentence: no traceback."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from flows.cli.main import app
from selection.core.errors import InputError
from selection.sae.interpret.latents_file import FILE, write_latents
from storage.audit.bundle import write_bundle
from storage.export.export import export_selection
from storage.files.hashes import FileHashes
from storage.files.workspace import Workspace, open_workspace
from storage.queries.lookup import find_selection, picks
from storage.report.page import write_report
from tests.catalog_run import real_run

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeroed": lambda content: bytes(len(content)),
    "flipped": lambda content: bytes(b ^ 0xFF for b in content[:64]) + content[64:],
    "turned": lambda content: content[: len(content) // 3] + content[::-1][len(content) // 3 :],
    "text": lambda content: b'{"a": [1, 2',
    "other": lambda content: b'[{"files": 3, "selection_id": null}]',
}
FILES = (
    "catalog.duckdb", "snapshot.duckdb", "workspace.json", "file_hashes.json",
    "pools/*/manifest.json", "pools/*/examples-*.parquet", "pools/*/occurrences-*.parquet",
    "pools/*/renderings/*/manifest.json", "pools/*/renderings/*/part-*.parquet",
    "shards/*/*/manifest.json", "shards/*/*/keys.npy", "shards/*/*/values.npy",
    "scores/*.parquet", "exports/*/manifest.json", "exports/*/train.jsonl", "reports/*.html",
    "saes/described/*/latents.parquet", "bundles/*/manifest.json", "bundles/*/catalog.duckdb",
)  # fmt: skip  # names, several a line
COMMANDS = (
    "ls", "show latest", "why latest ID", "diff latest latest", "where-used ID", "sql QUERY",
    "export latest", "export latest --format original", "report latest", "bundle latest --out NEW",
    "verify", "verify --head", "forget --id ID --yes", "reproduce latest",
)  # fmt: skip  # commands, several a line
N_CASES = 40 if int(os.environ.get("SAELECT_FUZZ_CASES", "0")) < 10_000 else 1_862
"""Of the combinations: all of them in `make fuzz`."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("fuzz-commands") / "template"
    shutil.copytree(real_run().parent / "workspace", root)
    workspace = open_workspace(root)
    chosen = find_selection(workspace, "latest")
    export_selection(workspace, chosen.name)
    write_report(workspace, chosen.name)
    write_bundle(workspace, chosen.name)
    workspace.described("abc").mkdir(parents=True)
    line = {"latent": 7, "description": "“x”", "examples": []}
    write_latents(workspace.described("abc") / FILE, [line], {"sae_sha256": "abc"})
    settled = root / "settled"  # hashes of files younger than a moment are not remembered
    settled.write_text("x")
    os.utime(settled, (0, 0))
    FileHashes(workspace.file_hashes).sha256(settled)
    return workspace


def cases() -> list[tuple[str, str, str]]:
    """(file, damage, command): every file with every damage, commands in turn; N_CASES of them."""
    rng = random.Random(0)
    every = [(f, d, c) for f in FILES for d in DAMAGES for c in COMMANDS]
    return sorted(rng.sample(every, min(N_CASES, len(every))))


def run(command: str, root: Path, example_id: str) -> int:
    """Exit code of a command in this process; InputError is 2, as `saelect` makes of it."""
    words = {"ID": example_id, "QUERY": "SELECT count(*) FROM v_selection", "NEW": str(root / "b")}
    arguments = [words.get(word, word) for word in command.split()]
    try:
        app([*arguments, "-w", str(root)], standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        return int(stop.code or 0)
    except InputError as refusal:
        return 2 if len(str(refusal)) > 20 else 3
    return 0


@pytest.mark.parametrize(("pattern", "damage", "command"), cases())
def test_a_damaged_file_is_answered_or_refused(
    template: Workspace, tmp_path: Path, pattern: str, damage: str, command: str
) -> None:
    chosen = find_selection(template, "latest")
    example_id = picks(template, chosen.selection_id, 1)[0].example_id
    root = tmp_path / "workspace"
    shutil.copytree(template.root, root)
    file = sorted(root.glob(pattern))[0]
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert run(command, root, example_id) in (0, 1, 2, 75)
