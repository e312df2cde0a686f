"""Runs every command and Python block of the pages: `python -m tests.docs_commands [PAGE ...]`.

Each page has an empty folder with `pool.jsonl` and `exemplars.jsonl` of the demonstration; pages
share a workspace. A command is a line of a block that is fenced as bash, and a line of README that
begins with `saelect`. The Python blocks of a page run as one program. What stands in other fences
is not run here; tests run the SQL of questions.md, and read the YAML.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "flows/demo"
NEVER_ENDS = ("saelect serve",)


def blocks(page: Path, language: str) -> list[str]:
    """What is fenced as one language on a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands_of(page: Path) -> list[str]:
    """Lines of the bash blocks of a page, comments left out; README's, which it only indents."""
    lines = [line.strip() for block in blocks(page, "bash") for line in block.splitlines()]
    if page.name == "README.md" and page.parent == ROOT:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        indented = re.findall(r"^((?:    saelect .*\n)+)\n", text, re.M)
        lines += [line.strip() for block in indented for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", *NEVER_ENDS))]


def programs_of(page: Path) -> Iterator[str]:
    """The Python of a page as one program, but blocks that import what is not installed."""
    kept = [
        block
        for block in blocks(page, "python")
        if all(
            importlib.util.find_spec(name)
            for name in re.findall(r"^(?:from|import) (\w+)", block, re.M)
        )
    ]
    if kept:
        yield "\n".join(kept)


def main() -> None:
    """Run them all; says which failed and ends with 1."""
    given = [Path(name).resolve() for name in sys.argv[1:]]
    pages = given or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, page in enumerate(pages):
            work = Path(folder) / f"{number}-{page.stem}"
            work.mkdir()
            for name in ("pool.jsonl", "exemplars.jsonl"):
                shutil.copyfile(DEMO / name, work / name)
            for command in commands_of(page):
                failed += not _run(page, ["bash", "-c", command], command, work)
            for program in programs_of(page):
                failed += not _run(page, [sys.executable, "-c", program], "its Python", work)
    sys.exit(1 if failed else 0)


def _run(page: Path, words: list[str], shown: str, folder: Path) -> bool:
    """Whether a command ended well; says so, and what it printed if not."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SAELECT_WORKSPACE": str(folder.parent / "workspace"),
    }
    started = time.monotonic()
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.monotonic() - started
    verdict = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
    sys.stdout.write(f"{page.name:<24} {seconds:6.1f} s  {verdict:<11} {shown}\n")
    if done.returncode:
        sys.stdout.write(done.stdout[-2000:] + done.stderr[-2000:])
    sys.stdout.flush()
    return done.returncode == 0


if __name__ == "__main__":
    main()
