"""The Prefect server of a single command: its own database, a secret, gone with its process."""

import os
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from flows.orchestration.prefect_server import _profile_url, refuse_unlike_fastapi, start_prefect
from selection.core.errors import InputError

COMMAND = """
import os, time, urllib.request
from flows.orchestration.prefect_server import start_prefect
start_prefect()()
print(os.environ["PREFECT_API_URL"], flush=True)
from prefect import flow
print(flow(lambda: 7)(), flush=True)
"""


def command(home: Path) -> "subprocess.CompletedProcess[str]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-c", COMMAND],
        env={**kept, "PREFECT_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_database_of_another_prefect_is_left_alone_and_the_server_ends_with_its_command(
    tmp_path: Path,
) -> None:
    with sqlite3.connect(tmp_path / "prefect.db") as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
        other.execute("INSERT INTO alembic_version VALUES ('of a newer release')")
    before = (tmp_path / "prefect.db").read_bytes()
    done = command(tmp_path)
    lines = done.stdout.split()
    assert done.returncode == 0, done.stderr
    assert lines[-1] == "7"
    assert (tmp_path / "prefect.db").read_bytes() == before
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{lines[-2]}/health", timeout=5)


def test_a_damaged_database_is_refused_with_its_name(tmp_path: Path) -> None:
    from importlib.metadata import version

    file = tmp_path / f"saelect-{version('prefect')}.db"
    file.write_bytes(b"no database" * 1000)
    done = command(tmp_path)
    assert done.returncode != 0
    for words in ("InputError", str(file), "did not start", "PREFECT_HOME"):
        assert words in done.stderr


def test_the_server_of_the_active_profile_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_PROFILE", raising=False)
    assert _profile_url() is None
    (tmp_path / "profiles.toml").write_text(
        'active = "team"\n[profiles.local]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n'
        '[profiles.team]\nPREFECT_API_URL = "https://example.org/api"\n[profiles.bare]\n'
    )
    assert _profile_url() == "https://example.org/api"
    monkeypatch.setenv("PREFECT_PROFILE", "bare")
    assert _profile_url() is None


def test_a_server_that_does_not_answer_is_refused_by_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/api"
        monkeypatch.setenv("PREFECT_API_URL", url)
        with pytest.raises(InputError, match=r"does not answer.*unset PREFECT_API_URL"):
            start_prefect()()


def test_a_prefect_and_a_fastapi_that_do_not_go_together_are_refused() -> None:
    for prefect, fastapi in (("3.7.2", "0.136.3"), ("3.7.8", "0.150.0"), ("3.10.0", "0.139.0")):
        refuse_unlike_fastapi(prefect, fastapi)
    with pytest.raises(InputError, match=r"Prefect 3\.7\.2 does not work with FastAPI 0\.137\.0"):
        refuse_unlike_fastapi("3.7.2", "0.137.0")
