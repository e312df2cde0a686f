"""Exports in environments of their own: what LLaMA-Factory and older `datasets` make of them.

python -m tests.trainers     makes the environments, runs every case through both; 1 on a difference

Needs the network for the packages. Each environment is another Python, which runs this file alone.
"""

import json
import os
import subprocess
import sys
import tempfile
import types
import venv
from importlib import import_module
from pathlib import Path
from typing import Any

LLAMA_FACTORY = "llamafactory==0.9.5"
DATASETS = ("datasets==3.6.0", "datasets==4.0.0", "datasets==4.7.0")
TEMPLATES = ("default", "qwen", "qwen3", "llama3", "deepseek3")


def exported(folder: Path) -> Path:
    """One export of every case whose rows are read."""
    from storage.export.export import export_selection
    from storage.files.workspace import open_workspace
    from tests.cases.table import CASES, pooled_run, tiny_model_in

    cases = [case for case in CASES if not case.refused]
    pools = []
    for number, case in enumerate(cases):
        (folder / f"case-{number}").mkdir()
        pools.append(case.write(folder / f"case-{number}"))
    different = pooled_run(cases, pools, folder, tiny_model_in(folder / "tiny"))
    assert not different, different
    formats = ("messages", "hf", "llama_factory")
    export_selection(open_workspace(folder / "workspace"), "latest", formats, folder / "export")
    return folder / "export"


def as_written(row: dict[str, Any]) -> dict[str, Any]:
    """A loaded row as the JSONL has it."""
    return {
        key: [json.loads(item) if isinstance(item, str) else item for item in value]
        if isinstance(value, list)
        else value
        for key, value in row.items()
    }


def try_datasets(export: Path) -> None:
    """Files that this version should load, against the JSONL; runs in an environment of its own."""
    import datasets

    manifest = json.loads((export / "manifest.json").read_text())
    wanted = [json.loads(line) for line in (export / "train.jsonl").read_text().split("\n")[:-1]]
    version = tuple(map(int, datasets.__version__.split(".")[:2]))
    for name, oldest in manifest["datasets"].items():
        if version < tuple(map(int, oldest.split("."))):
            continue
        path = str(export / name)
        if name == "hf_dataset":
            rows = datasets.load_from_disk(path)
        else:
            kind = "parquet" if name.endswith(".parquet") else "json"
            rows = datasets.load_dataset(kind, data_files=path, split="train")
        if name.startswith("train") or name == "hf_dataset":
            assert list(map(as_written, rows)) == wanted, name
        sys.stdout.write(f"datasets {datasets.__version__}: {name}: {len(rows)} rows\n")


def try_llama_factory(export: Path) -> None:
    """Every row is taken by the converter, and its texts are in what the templates write."""
    from datasets import load_dataset

    converter = import_module("llamafactory.data.converter")  # declared by its environment alone
    [name] = json.loads((export / "dataset_info.json").read_text())
    parser = import_module("llamafactory.data.parser")
    known = import_module("llamafactory.data.template").TEMPLATES
    [attributes] = parser.get_dataset_list([name], str(export))
    path = str(export / attributes.dataset_name)
    rows = load_dataset("json", data_files=path, split="train")
    settings = types.SimpleNamespace(media_dir=str(export))
    convert = converter.get_dataset_converter(attributes.formatting, attributes, settings)
    lost = 0
    for row in map(convert, rows):
        assert len(row["_prompt"]) % 2 == 1
        assert len(row["_response"]) == 1
        turns = row["_prompt"] + row["_response"]
        texts = [turn["content"] for turn in turns if turn["role"] != "function"]
        for template in map(known.get, TEMPLATES):
            pieces: list[str] = []

            def keep(_: object, elements: list[Any], pieces: list[str] = pieces) -> list[int]:
                pieces.extend(piece for piece in elements if isinstance(piece, str))
                return []

            template._convert_elements_to_ids = keep
            template._encode(None, turns, row["_system"], row["_tools"])
            lost += any(text not in "".join(pieces) for text in [*texts, row["_system"]])
    sys.stdout.write(f"LLaMA-Factory: {len(rows)} rows, {lost} texts lost\n")
    assert not lost


def run_in(folder: Path, packages: tuple[str, ...], job: str, export: Path) -> int:
    """Make an environment and run one job of this file there."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    clean["HF_HOME"] = str(folder / "cache")
    return subprocess.run([python, __file__, job, str(export)], env=clean, check=False).returncode


def main() -> int:
    """All of it, or one job of an environment."""
    jobs = {"datasets": try_datasets, "llama-factory": try_llama_factory}
    if len(sys.argv) == 3:
        jobs[sys.argv[1]](Path(sys.argv[2]))
        return 0
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        export = exported(folder)
        wrong = [
            run_in(folder / f"env-{number}", (package,), "datasets", export)
            for number, package in enumerate(DATASETS)
        ]
        wrong.append(run_in(folder / "env-lf", (LLAMA_FACTORY,), "llama-factory", export))
    return max(wrong)


if __name__ == "__main__":
    sys.exit(main())
