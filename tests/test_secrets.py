import json
from pathlib import Path
from typing import Any

import pytest

from selection.secrets import without_secrets
from storage.sql import run_sql
from tests.jobs import run_job, tiny_config


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("s3://AKIA:shh@bucket/pool.jsonl", "s3://***@bucket/pool.jsonl"),
        ("https://h/p?token=shh&x=1", "https://h/p?token=***&x=1"),
        ("https://h/p?x=1&X-Amz-Signature=shh", "https://h/p?x=1&X-Amz-Signature=***"),
        ("https://h/p?sig=shh#part", "https://h/p?sig=***#part"),
        ("hf_" + "a" * 34, "***"),
        ("data/pool.jsonl", "data/pool.jsonl"),
        ("https://h/p?page=2", "https://h/p?page=2"),
        ("mail me@example.org about keys = doors", "mail me@example.org about keys = doors"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(given: str, kept: str) -> None:
    assert without_secrets(given) == kept
    assert without_secrets({"a": [given, 1, None]}) == {"a": [kept, 1, None]}


def test_no_secret_of_config_or_environment_is_kept(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 34)
    config: Any = tiny_config(
        tiny_pool_path,
        tiny_exemplars_path,
        tiny_model_dir,
        tiny_sae_dir,
        note="from https://me:hunter2@host/pool?token=hunter2",
        index=False,
    )
    workspace, _ = run_job(config, tmp_path)
    note = json.loads(str(run_sql(workspace, "SELECT config FROM run").rows[0][0]))["note"]
    assert note == "from https://***@host/pool?token=***"
    for path in (p for p in workspace.root.rglob("*") if p.is_file()):
        content = path.read_bytes()
        assert b"hunter2" not in content, path
        assert b"s" * 34 not in content, path
