"""Whether saelect works beside each trainer, and on the oldest and newest packages it allows.

    python -m benchmarks.compatibility FOLDER [NAME ...] [--python 3.13] [--write]

FOLDER holds the environments, one for each NAME (default: all); what is there already is used as
it is. Each gets the wheel of this checkout and what it is named for in one resolution, then runs
`saelect demo`. All together need the network and about 60 GB; settings of uv (UV_FIND_LINKS,
UV_CONSTRAINT) choose another build of torch. `--write` renews docs/benchmarks/compatibility.md.
The last line is JSON; exit code 1 where something does not work.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks" / "compatibility.md"
BEGIN, END = "<!-- matrix -->", "<!-- /matrix -->"
ENVIRONMENTS = {
    "oldest": ("--constraint", str(ROOT / "constraints-lowest.lock")),
    "locked": ("--constraint", str(ROOT / "constraints.lock")),
    "newest": (),
    "TRL": ("trl==1.16.0",),
    "Axolotl": ("axolotl==0.19.0", "fastapi<0.137"),
    "Unsloth": ("unsloth==2026.10.9",),
    "LLaMA-Factory": ("llamafactory==0.9.5", "fastapi<0.137"),
}
"""Name -> what is installed with saelect."""

SHOWN = ["torch", "transformers", "datasets", "huggingface-hub", "duckdb", "polars", "prefect"]
VERSIONS = """
import importlib.metadata, json, platform, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({"python": platform.python_version(), **{n: version(n) for n in sys.argv[1:]}}))
"""


def main() -> int:
    """Make the environments, try each, print the matrix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the environments")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--python", default=sys.executable, help="version or path of a Python")
    parser.add_argument("--write", action="store_true", help=f"renew {PAGE.relative_to(ROOT)}")
    given = parser.parse_args()
    folder = given.folder.resolve()
    uv = folder / "uv" / "bin" / "uv"
    if not uv.exists():
        venv.create(uv.parents[1], with_pip=True)
        subprocess.run([uv.with_name("pip"), "install", "--quiet", "uv"], check=True)
    results = []
    with tempfile.TemporaryDirectory() as temp:
        subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", temp, ROOT], check=True)
        [wheel] = Path(temp).glob("*.whl")
        for name in given.names or ENVIRONMENTS:
            results.append(
                tried(uv, folder / name, given.python, [str(wheel), *ENVIRONMENTS[name]])
            )
            print(json.dumps(results[-1]), flush=True)
    table = matrix(results)
    print(table)
    if given.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(json.dumps({each["name"]: [each["installs"], each["demo"]] for each in results}))
    return int(not all(each["installs"] and each["demo"] for each in results))


def tried(uv: Path, folder: Path, python: str, packages: Sequence[str]) -> dict[str, Any]:
    """What one environment holds, and whether saelect installs and its demo ends well there."""
    result: dict[str, Any] = {"name": folder.name, "installs": True, "demo": False}
    result["with"] = next((each for each in packages[1:] if "==" in each), "")
    inside = folder / "bin" / "python"
    if not inside.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", python, folder], check=True)
    install = [
        str(uv),
        "pip",
        "install",
        "--quiet",
        "--python",
        str(inside),
        "--reinstall-package",
        "saelect",
    ]
    done = subprocess.run([*install, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        return {**result, "installs": False, "why": done.stderr.strip()}
    versions = subprocess.run(
        [inside, "-c", VERSIONS, *SHOWN], capture_output=True, text=True, check=True, cwd=folder
    )
    result["versions"] = json.loads(versions.stdout)
    with tempfile.TemporaryDirectory() as temp:
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        clean |= {"HF_HUB_OFFLINE": "1", "PREFECT_HOME": f"{temp}/prefect"}
        demo = subprocess.run(
            [folder / "bin" / "saelect", "demo", "--workspace", f"{temp}/workspace"],
            env=clean, cwd=temp, capture_output=True, text=True, check=False,
        )  # fmt: skip
    result["demo"] = demo.returncode == 0
    return result if result["demo"] else {**result, "why": (demo.stdout + demo.stderr)[-2000:]}


def matrix(results: Sequence[dict[str, Any]]) -> str:
    """The results as a table in Markdown."""
    heads = ["environment", "installs", "demo", "python", *SHOWN]
    rows = [heads, ["---"] * len(heads)]
    for each in results:
        words = ["yes" if each[key] else "no" for key in ("installs", "demo")]
        versions = each.get("versions", {})
        name = each["with"].replace("==", " ") or each["name"]
        rows.append([name, *words, *(versions.get(key) or "-" for key in heads[3:])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
