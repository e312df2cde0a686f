"""What the code imports is declared, and what is declared is imported."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tree import imported_names

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PRODUCT = ("flows", "storage", "selection")
DEVELOPMENT = ("tests", "benchmarks")
IMPORTED_AS = {
    "faiss-cpu": "faiss", "faiss-gpu": "faiss", "huggingface-hub": "huggingface_hub",
    "pyyaml": "yaml", "eai-sparsify": "sparsify", "sae-lens": "sae_lens",
    "mlflow-skinny": "mlflow",
}  # fmt: skip
COMES_WITH = {
    "httpx": "prefect", "starlette": "fastapi", "uvicorn": "prefect",
    "markupsafe": "jinja2", "tokenizers": "transformers", "nbformat": "nbclient",
}  # fmt: skip
"""Packages that are imported because a declared one brings them."""

NOT_IMPORTED = {
    "fastapi": "pinned for Prefect", "sqlalchemy": "pinned for Prefect",
    "ipykernel": "runs notebooks", "ipywidgets": "bars in notebooks", "mkdocs-material": "a site",
    "import-linter": "a command", "mypy": "a command", "ruff": "a command",
    "pytest-xdist": "a plugin", "types-PyYAML": "stubs",
}  # fmt: skip
OPTIONAL = {"delphi": "a reader of our files, in an environment of its own",
            "gguf": "by which transformers reads such files",
            "dictionary_learning": "an oracle, installed with --no-deps"}  # fmt: skip


def declared(requirements: list[str]) -> set[str]:
    """Names of requirements as they are imported."""
    names = {re.split(r"[^A-Za-z0-9_-]", each)[0] for each in requirements}
    return {IMPORTED_AS.get(name, name) for name in names}


def imports(folders: tuple[str, ...]) -> set[str]:
    """Top-level names of other packages that the folders import anywhere."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    names = {name.split(".")[0] for file in files for name in imported_names(file)}
    return names - set(sys.stdlib_module_names) - set(PRODUCT) - set(DEVELOPMENT) - {"__future__"}


EXTRAS = PROJECT["optional-dependencies"]
RUNTIME = declared(PROJECT["dependencies"])
ALL = RUNTIME | declared([each for extra in EXTRAS.values() for each in extra])


def test_the_product_imports_what_is_declared_for_it() -> None:
    extras = ("ray", "finetune", "plots", "mlflow", "wandb", "trackio")
    others = imports(PRODUCT) - RUNTIME - declared([n for name in extras for n in EXTRAS[name]])
    assert {COMES_WITH.get(name) for name in others} <= RUNTIME


def test_tests_and_benchmarks_import_what_is_declared() -> None:
    others = imports(DEVELOPMENT) - ALL - set(OPTIONAL)
    assert {COMES_WITH.get(name) for name in others} <= ALL


def test_what_is_declared_is_imported() -> None:
    assert RUNTIME - imports(PRODUCT) - set(NOT_IMPORTED) == set()
    assert ALL - imports(PRODUCT + DEVELOPMENT) - set(NOT_IMPORTED) == set()


def test_the_lowest_lock_holds_the_oldest_release_that_is_allowed() -> None:
    lines = (ROOT / "constraints-lowest.lock").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines)
    for wanted in PROJECT["dependencies"] + EXTRAS["dev"]:
        name, oldest = re.match(r"([\w-]+)>=([\d.]+)", wanted).groups()  # type: ignore[union-attr]
        if name != "faiss-cpu":
            oldest, found = (
                re.sub(r"(\.0)*$", "", each) for each in (oldest, pinned[name.lower()])
            )
            assert (name, found) == (name, oldest)


@pytest.mark.parametrize("extra", ["dependencies", "dev", "ray"])
def test_the_lock_pins_every_declared_package(extra: str) -> None:
    wanted = PROJECT["dependencies"] if extra == "dependencies" else EXTRAS[extra]
    lines = (ROOT / "constraints.lock").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    names = {re.split(r"[^A-Za-z0-9_-]", each)[0].lower() for each in wanted}
    assert names - pinned - {"faiss-cpu"} == set()
