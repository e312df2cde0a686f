"""Exports on the hub: what is shown, refused, committed at once, recorded, and never written down.

`huggingface_hub` itself speaks with the stand-in of `hub_server`.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, constants
from typer.testing import CliRunner

from flows.cli.main import app
from storage.audit.forget import forget
from storage.catalog.snapshot import open_snapshot
from storage.export.export import export_selection
from storage.files.workspace import Workspace
from storage.queries.lookup import find_selection, picks, where_used
from tests.catalog_fixture import made_workspace
from tests.hub_server import Dataset, Hub, hub_server

# The client's own, where it uploads a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

TOKEN = "planted-secret-" + "q" * 20  # no form that a pattern would know
NAME = "org/picks"
ALLOWED = ("--allow-licence", "not named")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, for the client in this process and for child processes."""
    with hub_server(TOKEN) as server:
        for name, value in (
            ("HF_ENDPOINT", server.url), ("HF_TOKEN", TOKEN), ("HF_HUB_OFFLINE", "0"),
            ("HF_HUB_DISABLE_XET", "1"), ("HF_HOME", str(tmp_path / "hf")),
        ):  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        yield server


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Thirty picks under mit, three of which stand in rows without a licence too; exported."""
    workspace = made_workspace(tmp_path / "w", n_selected=30, n_near=5)
    export_selection(workspace, "calm-otter", ["messages", "ids"])
    return workspace


def push(workspace: Workspace, *words: str) -> str:
    """What `saelect push calm-otter` says, or its error."""
    done = CliRunner().invoke(app, ["push", "calm-otter", *words, "-w", str(workspace.root)])
    return done.stdout if done.exception is None else f"REFUSED {done.exception}"


def events(workspace: Workspace) -> list[tuple[str, dict[str, Any]]]:
    with open_snapshot(workspace) as connection:
        query = "SELECT action, detail FROM event WHERE action LIKE 'push%' ORDER BY rowid"
        rows = connection.execute(query).fetchall()
    return [(action, json.loads(detail)) for action, detail in rows]


def test_a_push_is_shown_first_and_then_one_private_commit(hub: Hub, workspace: Workspace) -> None:
    shown = push(workspace, NAME, *ALLOWED)
    assert "org/picks of the hub, as alice: new and private" in shown
    assert "mit 30, not named 3" in shown
    assert "held-out exemplar ranks above" in shown
    assert "Nothing was uploaded; add --yes" in shown
    assert hub.datasets == {}
    assert events(workspace) == []

    done = push(workspace, NAME, *ALLOWED, "--yes")
    data = hub.datasets[NAME]
    assert data.private
    assert len(data.commits) == 2, done
    (_, empty), (commit, files) = data.commits
    assert set(empty) == {".gitattributes"}
    assert f"uploaded to hf://datasets/{NAME}, commit {commit}" in done
    folder = workspace.exports / "calm-otter"
    local = {path.name: path.read_bytes() for path in folder.iterdir()}
    card = files.pop("README.md").decode()
    assert files == {**empty, **{k: v for k, v in local.items() if k != "README.md"}}
    assert f'load_dataset("{NAME}", split="train")' in card
    assert local["README.md"].decode().count("\n") == card.count("\n")
    assert DatasetCard(card).data.to_dict()["license"] == ["mit", "unknown"]

    row = find_selection(workspace, "calm-otter")
    run = json.loads(local["manifest.json"])
    for named in (row.selection_id, "pool_id", "model_sha256", "sae_sha256", "config_sha256"):
        assert str(run.get(named, named)) in card
    used = where_used(workspace, picks(workspace, row.selection_id, 1)[0].example_id)
    kept = {used.path for used in used}
    assert {f"hf://datasets/{NAME}/{name}" for name in ("train.jsonl", "ids.csv")} <= kept
    assert events(workspace) == [
        ("push_began", {"to": f"hf://datasets/{NAME}", "allowed_licences": ["not named"]}),
        ("pushed", {"to": f"hf://datasets/{NAME}", "commit": commit}),
    ]


def test_a_later_push_is_another_commit_without_what_the_export_lacks(
    hub: Hub, workspace: Workspace
) -> None:
    push(workspace, NAME, *ALLOWED, "--yes")
    hub.datasets[NAME].commits[-1][1]["theirs.txt"] = b"kept"
    (workspace.exports / "calm-otter" / "ids.csv").unlink()
    export_selection(workspace, "calm-otter", ["messages"])
    assert "no longer part of it: ids.csv" in push(workspace, NAME, *ALLOWED, "--yes")
    files = hub.datasets[NAME].files
    assert set(files) == {".gitattributes", "README.md", "manifest.json", "theirs.txt",
                          "train.jsonl", "train.parquet"}  # fmt: skip


def test_an_upload_that_dies_shows_nothing_and_may_be_repeated(
    hub: Hub, workspace: Workspace
) -> None:
    hub.refuse["/commit/"] = (0, "")
    died = push(workspace, NAME, *ALLOWED, "--yes")
    assert "REFUSED dataset org/picks" in died
    assert "Nothing of this upload shows: files appear in one commit" in died
    assert hub.stored  # the large file had arrived
    assert set(hub.datasets[NAME].files) == {".gitattributes"}
    assert [action for action, _ in events(workspace)] == ["push_began", "push_failed"]
    hub.refuse.clear()
    assert "uploaded to" in push(workspace, NAME, *ALLOWED, "--yes")
    assert "train.parquet" in hub.datasets[NAME].files


def test_what_nobody_may_pass_on_public_data_and_foreign_files_are_refused(
    hub: Hub, workspace: Workspace
) -> None:
    refused = push(workspace, NAME, "--yes")
    assert "do not let everybody pass the data on" in refused
    assert "--allow-licence 'not named'" in refused
    hub.datasets[NAME] = Dataset(private=False)
    hub.datasets[NAME].add({".gitattributes": b""})
    assert "the dataset is public" in push(workspace, NAME, *ALLOWED, "--yes")
    hub.datasets[NAME].add({"theirs.jsonl": b"{}"})
    assert "did not put there" in push(workspace, NAME, *ALLOWED, "--public", "--yes")
    hub.datasets[NAME].add({"manifest.json": b"[]", "theirs.jsonl": b"{}"})
    assert "did not put there" in push(workspace, NAME, *ALLOWED, "--public", "--yes")
    assert events(workspace) == []
    push(workspace, "org/open", *ALLOWED, "--public", "--yes")
    assert not hub.datasets["org/open"].private
    assert "organisation/name" in push(workspace, "picks", *ALLOWED)
    assert "one place is needed" in push(workspace, *ALLOWED)
    assert "one place is needed" in push(workspace, NAME, "--to", "memory://x", *ALLOWED)


def test_an_export_that_is_missing_altered_or_holds_a_forgotten_sample_stays_here(
    hub: Hub, workspace: Workspace
) -> None:
    file = workspace.exports / "calm-otter" / "train.jsonl"
    first = json.loads(file.read_text().splitlines()[0])["id"]
    file.write_bytes(file.read_bytes() + b"\n")
    assert "not as it was exported" in push(workspace, NAME, *ALLOWED, "--yes")
    export_selection(workspace, "calm-otter", ["messages", "ids"])
    assert "uploaded to" in push(workspace, NAME, *ALLOWED, "--yes")
    outside = forget(workspace, [first], reason="wanted").outside
    assert f"hf://datasets/{NAME}/train.jsonl" in outside
    assert "uploaded to" in push(workspace, NAME, *ALLOWED, "--yes")
    assert first.encode() in hub.datasets[NAME].commits[1][1]["train.jsonl"]
    assert first.encode() not in hub.datasets[NAME].files["train.jsonl"]
    other = CliRunner().invoke(app, ["push", "calm-otter-random", NAME, "-w", str(workspace.root)])
    assert "was not exported" in str(other.exception)


def test_the_token_is_written_nowhere(
    hub: Hub,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not where a hub that is refused repeats it, not in logs of the client, not in any file."""
    caplog.set_level(logging.DEBUG)
    said = []
    hub.refuse["/repos/create"] = (403, f"the token {TOKEN} may not make datasets for org")
    said.append(push(workspace, NAME, *ALLOWED, "--yes"))
    assert "may not make datasets for org" in said[0]
    hub.refuse.clear()
    words = [sys.executable, "-m", "flows.cli.main", "push", "calm-otter", NAME, *ALLOWED, "--yes"]
    done = subprocess.run(
        [*words, "-w", str(workspace.root)], capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_VERBOSITY": "debug"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}-wrong")
    said.append(push(workspace, NAME, *ALLOWED, "--yes"))
    assert "401" in said[1]
    monkeypatch.delenv("HF_TOKEN")
    said.append(push(workspace, NAME, *ALLOWED, "--yes"))
    assert "there is no token for the hub" in said[2]
    logged = [r.getMessage() for r in caplog.records if not r.name.startswith("httpcore")]
    assert logged  # httpcore's trace repeats what the hub answered
    for text in (*said, done.stdout, done.stderr, *logged):
        assert TOKEN not in text
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path
    assert all(TOKEN.encode() not in file for file in hub.datasets[NAME].files.values())
