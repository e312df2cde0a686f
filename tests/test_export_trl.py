"""What TRL's trainer does with an export before training: load, recognize, apply the template."""

from pathlib import Path
from typing import Any

import pytest

from tests.run_stages import run_job, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_an_export_is_conversational_and_formats_to_the_rendered_text(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tiny_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    from datasets import load_dataset
    from trl.data_utils import is_conversational, maybe_apply_chat_template

    config = tiny_config(
        tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir, index=False
    )
    workspace, (result,) = run_job(config, tmp_path / "w")
    folder = workspace.exports / str(result["name"])
    for kind, name in (("json", "train.jsonl"), ("parquet", "train.parquet")):
        rows = load_dataset(
            kind, data_files=str(folder / name), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert len(rows) == 7
        for row in rows:
            assert is_conversational(row)
            text = maybe_apply_chat_template(row, tiny_tokenizer)["text"]
            assert text == tiny_tokenizer.apply_chat_template(row["messages"], tokenize=False)
            assert row["messages"][-1]["content"] in text
