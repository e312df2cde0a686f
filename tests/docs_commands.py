"""Runs every command of the pages in an empty folder: `python -m tests.docs_commands`.

A command is a line of a block that is fenced as bash. What stands in other fences is not run.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def commands_of(page: Path) -> list[str]:
    """Lines of the bash blocks of a page, comments left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def main() -> None:
    """Run them all; says which failed and ends with 1."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SAELECT_WORKSPACE": str(Path(folder) / "workspace"),
        }
        for page in sorted(DOCS.rglob("*.md")):
            for command in commands_of(page):
                started = time.monotonic()
                done = subprocess.run(
                    ["bash", "-c", command], cwd=folder, env=environment, capture_output=True,
                    text=True, timeout=600, check=False,
                )  # fmt: skip
                seconds = time.monotonic() - started
                verdict = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
                sys.stdout.write(f"{page.name:<24} {seconds:6.1f} s  {verdict:<11} {command}\n")
                if done.returncode:
                    failed += 1
                    sys.stdout.write(done.stdout[-2000:] + done.stderr[-2000:])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
