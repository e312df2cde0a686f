"""Two users with one group share a workspace: each goes on where the other stopped."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalog_fixture import made_workspace

GROUP, FIRST, SECOND = 34567, 34568, 34569  # users without a name, as in containers


def others_may_run_python() -> bool:
    """Whether this process may become another user, who can then read the interpreter."""
    needed = [Path(sys.executable).resolve(), Path(__file__).resolve(), Path(os.__file__)]
    folders = {folder for file in needed for folder in file.parents}
    return os.geteuid() == 0 and all(folder.stat().st_mode & 0o001 for folder in folders)


pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not others_may_run_python(),
    reason="needs root, and a Python that others may run",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="saelect-team-"))
    yield path
    shutil.rmtree(path)


def saelect(
    user: int, *arguments: str, home: Path, prefect: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli.main import main; main()", *arguments],
        user=user,
        group=GROUP,
        extra_groups=[],
        umask=0o002,
        cwd=root,
        env={
            **os.environ,
            "HOME": str(home),
            "PREFECT_HOME": str(prefect or home / "prefect"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_one_user_wrote_another_goes_on_with(folder: Path) -> None:
    workspace = made_workspace(folder / "w").root
    for path in (folder, *folder.rglob("*")):
        os.chown(path, FIRST, GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    query = "SELECT example_id FROM pick ORDER BY ALL LIMIT 1"
    for user in (FIRST, SECOND, FIRST):
        for command in (["export", "calm-otter"], ["report", "calm-otter"], ["verify"], ["ls"]):
            done = saelect(user, *command, "-w", str(workspace), home=folder)
            assert done.returncode == 0, (user, command, done.stderr)
    listed = saelect(SECOND, "sql", query, "-f", "csv", "-w", str(workspace), home=folder)
    example = listed.stdout.split()[1]
    (closed_to_others := folder / "closed").mkdir(mode=0o700)
    forget = ["forget", "--id", example, "--yes", "-w", str(workspace)]
    refused = saelect(SECOND, *forget, home=folder, prefect=closed_to_others)
    assert (refused.returncode, "you may not look" in refused.stderr) == (2, True), refused.stderr
    done = saelect(SECOND, *forget, home=folder)
    assert done.returncode == 0, done.stderr
    closed = [path for path in workspace.rglob("*") if not path.stat().st_mode & 0o020]
    assert closed == []
    assert {path.stat().st_gid for path in workspace.rglob("*")} == {GROUP}


def test_who_may_not_write_is_told_so(folder: Path) -> None:
    workspace = made_workspace(folder / "w").root
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shown = saelect(SECOND, "ls", "-w", str(workspace), home=folder)
    assert shown.returncode == 0, shown.stderr
    refused = saelect(SECOND, "export", "calm-otter", "-w", str(workspace), home=folder)
    assert refused.returncode == 2
    assert "you may write" in refused.stderr
    assert "Traceback" not in refused.stderr
