"""Runs the notebooks of docs/ from the first cell to the last: `python -m tests.docs_notebook`.

With --write their outputs are kept in the files. Needs the extra `docs`.
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Run every notebook in an empty folder; an error in a cell ends with its traceback."""
    for file in sorted(DOCS.rglob("*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(
                notebook, timeout=600, resources={"metadata": {"path": folder}}
            ).execute()
        sys.stdout.write(f"{file.name}: {time.monotonic() - started:.1f} s\n")
        if "--write" in sys.argv:
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)
            nbformat.write(notebook, file)


if __name__ == "__main__":
    main()
