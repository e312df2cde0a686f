"""Runs the notebooks of docs/ from the first cell to the last: `python -m tests.docs_notebook`.

With --write their outputs are kept in the files. Needs the extra `docs`. A notebook that installs
packages runs in an empty environment of its own, with the versions of the lock.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
INSTALLS = "%pip install"


def main() -> None:
    """Run every notebook in an empty folder; an error in a cell ends with its traceback."""
    for file in sorted((ROOT / "docs").rglob("*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            kernel = "python3"
            if any(INSTALLS in cell.source for cell in notebook.cells):
                kernel = make_kernel(Path(folder) / "own")
            NotebookClient(
                notebook,
                timeout=3600,
                kernel_name=kernel,
                resources={"metadata": {"path": folder}},
            ).execute()
        sys.stdout.write(f"{file.name}: {time.monotonic() - started:.1f} s\n")
        if "--write" in sys.argv:
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)
            nbformat.write(notebook, file)


def make_kernel(folder: Path) -> str:
    """Name of a kernel whose environment holds ipykernel alone; it installs from this checkout."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    lock = str(ROOT / "constraints.lock")
    packages = ("ipykernel", "ipywidgets")
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", lock, *packages]
    subprocess.run(install, check=True)
    spec = {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": folder.name,
        "language": "python",
        "env": {"PIP_CONSTRAINT": lock, "SAELECT_SOURCE": str(ROOT)},
    }
    kernel = folder / "kernels" / folder.name / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(spec))
    os.environ["JUPYTER_PATH"] = str(folder)
    return folder.name


if __name__ == "__main__":
    main()
