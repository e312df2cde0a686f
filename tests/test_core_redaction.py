import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from flows.cli.main import main
from selection.core.redaction import without_secrets
from storage.queries.sql import run_sql
from tests.run_stages import run_job, tiny_config


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
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Pool and exemplars lie at addresses with a password; catalog, files and logs are read."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 34)
    monkeypatch.chdir(tmp_path)
    caplog.set_level("DEBUG")
    pool, exemplars = "memory://me:hunter2@host/pool.jsonl", "memory://KEY:hunter2@bucket/ex.jsonl"
    for given, source in ((pool, tiny_pool_path), (exemplars, tiny_exemplars_path)):
        fsspec.filesystem("memory").pipe(given, source.read_bytes())
    config: Any = tiny_config(
        Path("unused"),
        {"path": exemplars},
        tiny_model_dir,
        tiny_sae_dir,
        pool={"path": pool, "columns": {"id": "id"}},
        note="from https://me:hunter2@host/pool?token=hunter2",
        index=False,
    )
    workspace, _ = run_job(config, tmp_path / "workspace")
    note = json.loads(str(run_sql(workspace, "SELECT config FROM run").rows[0][0]))["note"]
    assert note == "from https://***@host/pool?token=***"
    for path in (p for p in workspace.root.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += str(pq.read_table(path).to_pylist()).encode()
        assert b"hunter2" not in content, path
        assert b"s" * 34 not in content, path
    ours = [r for r in caplog.records if r.name.split(".")[0] in ("selection", "storage", "flows")]
    assert ours
    for record in ours:
        assert "hunter2" not in record.getMessage()
        assert "s" * 34 not in record.getMessage()


def test_a_message_about_an_address_hides_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "https://me:hunter2@host/pool.yaml?token=hunter2"
    monkeypatch.setattr("sys.argv", ["saelect", "run", address])
    monkeypatch.setattr("atexit.register", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "https://***@host/pool.yaml?token=***" in said.err
    assert "hunter2" not in said.err + said.out
