"""What trainers make of an export: their own loaders, each in an environment of its own.

python -m benchmarks.trainer_loaders FOLDER [NAME ...]

FOLDER: of the environments; one that is not there yet is made (needs the network, some GB).
NAME:   of environments; default: all. 1 on a difference.

The export holds every case of `tests.cases`. A trainer must give a row for each, of as many tokens
as the catalog counts, and train on the answers, as saelect marks them, and on what ends them. Rows
with reasoning, tools or turns of weight 0, which each trainer treats in its own way, are only
compared and counted. Each environment is another Python, which runs this file alone.
"""

import json
import os
import subprocess
import sys
import tempfile
import types
import venv
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

ENVIRONMENTS = {
    "datasets-3.6": ("datasets", "datasets==3.6.0"),
    "datasets-4.0": ("datasets", "datasets==4.0.0"),
    "datasets-4.7": ("datasets", "datasets==4.7.0"),
    "trl": ("trl", "trl==1.16.0"),
    "llama-factory": ("llama-factory", "llamafactory==0.9.5"),
    "axolotl": ("axolotl", "axolotl==0.19.0"),
}
"""Environment -> the job that it does, and what is installed."""

MAX_LENGTH = 256
TEMPLATES = ("default", "qwen", "qwen3", "llama3", "deepseek3")  # some of LLaMA-Factory's own

HEADER = ("trainer", "rows", "tokens", "theirs", "trained", "theirs", "differ", "others",
          "other tokens", "other mask")  # fmt: skip

Counts = dict[str, list[int]]
"""Example id -> tokens, and tokens that are trained on."""


def exported(folder: Path) -> tuple[Path, Path, Counts]:
    """An export of every case whose rows are read, the trainee, and what saelect counts."""
    from selection.interactive.reader import DEMO_FOLDER
    from storage.export.export import export_selection
    from storage.files.workspace import open_workspace
    from storage.queries.sql import run_sql
    from tests.cases.table import CASES, pooled_run, tiny_model_in

    cases = [case for case in CASES if not case.refused]
    pools = []
    for number, case in enumerate(cases):
        (folder / f"case-{number}").mkdir()
        pools.append(case.write(folder / f"case-{number}"))
    model = DEMO_FOLDER / "model"
    trainee = {"trainee_tokenizer": str(model), "max_length": MAX_LENGTH}
    different = pooled_run(cases, pools, folder, tiny_model_in(folder / "tiny"), **trainee)
    assert not different, different
    workspace = open_workspace(folder / "workspace")
    formats = ("messages", "hf", "llama_factory", "axolotl")
    export_selection(workspace, "latest", formats, folder / "export")
    query = "SELECT example_id, tokens FROM v_selection ORDER BY rank"
    tokens = {str(name): int(str(n)) for name, n in run_sql(workspace, query).rows}
    answers = answer_tokens(folder / "export" / "train.jsonl", model)
    return folder / "export", model, {name: [tokens[name], answers[name]] for name in tokens}


def answer_tokens(file: Path, model: Path) -> dict[str, int]:
    """Example id -> tokens of its answers within the length, and those that end an answer."""
    from selection.rendering.renderer import load_renderer

    renderer = load_renderer(model, counted="response", max_length=MAX_LENGTH)
    found = {}
    for row in lines_of(file):
        rendered = renderer.render(row["messages"], row.get("tools"))
        roles, ends = "", 0
        for token in rendered.tokens.tolist():
            text = renderer.token_text(token)
            roles = text if text.startswith("<|") and text != "<|end|>" else roles
            ends += text == "<|end|>" and roles == "<|assistant|>"
        found[row["id"]] = int(rendered.content_mask.sum()) + ends
    return found


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def is_plain(row: Mapping[str, Any]) -> bool:
    """Whether all turns are a role and a content, and none is a tool's."""
    turns = row["messages"]
    known = {"role", "content", "system", "user", "assistant"}
    seen = {key for turn in turns for key in turn} | {turn["role"] for turn in turns}
    return not row.get("tools") and seen <= known


def as_written(row: dict[str, Any]) -> dict[str, Any]:
    """A loaded row as the JSONL has it."""
    return {
        key: [json.loads(item) if isinstance(item, str) else item for item in value]
        if isinstance(value, list)
        else value
        for key, value in row.items()
    }


def try_datasets(export: Path, model: Path) -> Counts:
    """Files that this version should load, against the JSONL."""
    import datasets

    manifest = json.loads((export / "manifest.json").read_text())
    wanted = lines_of(export / "train.jsonl")
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
    return {}


def try_trl(export: Path, model: Path) -> Counts:
    """The rows as `SFTTrainer` prepares them, with a loss on answers alone."""
    from datasets import load_dataset

    trl = import_module("trl")
    rows = load_dataset("json", data_files=str(export / "train.jsonl"), split="train")
    settings = trl.SFTConfig(
        output_dir=str(export.parent / "trl"),
        assistant_only_loss=True,
        max_length=MAX_LENGTH,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    trainer = trl.SFTTrainer(str(model), settings, train_dataset=rows)
    return {row["id"]: counted(row) for row in trainer.train_dataset}


def try_llama_factory(export: Path, model: Path) -> Counts:
    """The rows as its `sft` stage prepares them, with the tokenizer's own template."""
    data = import_module("llamafactory.data")
    template_of = import_module("llamafactory.data.template").get_template_and_fix_tokenizer
    [name] = json.loads((export / "dataset_info.json").read_text())
    settings = {
        "stage": "sft",
        "model_name_or_path": str(model),
        "dataset_dir": str(export),
        "dataset": name,
        "cutoff_len": MAX_LENGTH,
        "do_train": True,
        "finetuning_type": "full",
        "output_dir": str(export.parent / "llama-factory"),
        "use_cpu": True,
        "report_to": "none",
    }
    arguments = import_module("llamafactory.hparams").get_train_args(settings)
    tokenizer = import_module("llamafactory.model").load_tokenizer(arguments[0])
    template = template_of(tokenizer["tokenizer"], arguments[1])
    rows = data.get_dataset(template, *arguments[:3], stage="sft", **tokenizer)["train_dataset"]
    texts_of_llama_factory(export)
    ids = [row["id"] for row in lines_of(export / "llama_factory.jsonl")]
    # The template that it makes of the tokenizer's writes BOS again before each turn of the user.
    first = tokenizer["tokenizer"].bos_token_id
    again = [max(0, row["input_ids"].count(first) - 1) for row in rows]
    counts = [[counted(row)[0] - n, counted(row)[1]] for row, n in zip(rows, again, strict=True)]
    return dict(zip(ids, counts, strict=True))


def try_axolotl(export: Path, model: Path) -> Counts:
    """The rows as its strategy `chat_template` prepares them, by the exported axolotl.yaml."""
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from yaml import safe_load

    settings = safe_load((export / "axolotl.yaml").read_text())
    config = import_module("axolotl.utils.dict").DictDefault(
        {**settings, "sequence_len": MAX_LENGTH, "train_on_inputs": False}
    )
    [dataset] = settings["datasets"]
    load = import_module("axolotl.prompt_strategies.chat_template").load
    strategy = load(AutoTokenizer.from_pretrained(model), config, ds_cfg=dataset)
    path = str(export / dataset["path"])
    rows = load_dataset(dataset["ds_type"], data_files=path, split="train")
    counts = {}
    for row in rows:
        prepared = strategy.tokenize_prompt(row)
        counts[row["id"]] = counted(
            {name: prepared[name][:MAX_LENGTH] for name in ("input_ids", "labels")}
        )
    return counts


def texts_of_llama_factory(export: Path) -> None:
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


def counted(row: Mapping[str, Any]) -> list[int]:
    """Tokens of a prepared row, and those of them that it is trained on."""
    return [len(row["input_ids"]), sum(label != -100 for label in row["labels"])]


JOBS = {
    "datasets": ("datasets", try_datasets),
    "trl": ("trl", try_trl),
    "llama-factory": ("llamafactory", try_llama_factory),
    "axolotl": ("axolotl", try_axolotl),
}
"""Job -> the package whose version it tells, and what it does."""


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of an environment, which is made where there is none yet."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def run_in(python: Path, job: str, export: Path, model: Path) -> tuple[str, Counts] | None:
    """The version and the counts that a job of this file gives there; None where it failed."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    clean |= {"HF_HOME": str(export.parent / f"cache-{job}"), "HF_HUB_OFFLINE": "1"}
    answer, log = export.parent / f"{job}.json", export.parent / f"{job}.log"
    command = [str(python), __file__, "--job", job, str(export), str(model), str(answer)]
    with log.open("w") as output:
        done = subprocess.run(command, env=clean, check=False, stdout=output, stderr=output)
    if done.returncode:
        sys.stdout.write(log.read_text()[-3000:])
        return None
    told, counts = json.loads(answer.read_text())
    return told, counts


def compared(ours: Counts, theirs: Counts, plain: set[str]) -> tuple[list[str], int]:
    """Cells of the table for what a trainer counts, and the plain rows in which it differs."""
    both = ours.keys() & theirs.keys()
    same, other = [name for name in both if name in plain], both - plain
    sums = [f"{sum(of[name][k] for name in same):,}" for k in (0, 1) for of in (ours, theirs)]
    wrong = sum(ours[name] != theirs[name] for name in same)
    differ = [str(sum(ours[name][k] != theirs[name][k] for name in other)) for k in (0, 1)]
    return [f"{len(same):,}", *sums, str(wrong), str(len(other)), *differ], wrong


def left_out_of(export: Path) -> set[str]:
    """Ids of the rows that the export leaves out for LLaMA-Factory."""
    files = json.loads((export / "manifest.json").read_text())["files"]
    [reasons] = [file["left_out"] for file in files if file["path"] == "llama_factory.jsonl"]
    return {name for names in reasons.values() for name in names}


def main() -> int:
    """All of it, or one job of an environment."""
    if sys.argv[1] == "--job":
        export, model, answer = map(Path, sys.argv[3:])
        package, counts_of = JOBS[sys.argv[2]]
        answer.write_text(json.dumps([f"{package} {version(package)}", counts_of(export, model)]))
        return 0
    from flows.orchestration.terminal import print_table

    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(ENVIRONMENTS)
    failed, table = [], []
    with tempfile.TemporaryDirectory() as temp:
        export, model, ours = exported(Path(temp))
        plain = {row["id"] for row in lines_of(export / "train.jsonl") if is_plain(row)}
        for name in names:
            job, *packages = ENVIRONMENTS[name]
            found = run_in(environment(folder / name, packages), job, export, model)
            if found is None or job == "datasets":
                failed += [name] if found is None else []
                continue
            cells, wrong = compared(ours, found[1], plain)
            table.append([found[0], *cells])
            missing = ours.keys() - found[1].keys()
            if wrong or missing - (left_out_of(export) if job == "llama-factory" else set()):
                failed.append(name)
    print_table(HEADER, table)
    print(f"others: rows with reasoning, tools or turns of weight 0. Failed: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
