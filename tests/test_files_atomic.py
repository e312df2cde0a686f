import errno
import os
import time
from pathlib import Path

import pytest

from selection.core.errors import InputError
from selection.core.numbers import size
from storage.files import atomic


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def folder_with(path: Path, content: str, manifest: bool = True) -> Path:
    path.mkdir()
    (path / "data").write_text(content)
    if manifest:
        atomic.write_json(path / atomic.MANIFEST, {"content": content})
    return path


def test_json_comes_back_as_written(tmp_path: Path) -> None:
    value = {"b": 1, "a": ["ü", None], "c": {"d": 0.5}}
    atomic.write_json(tmp_path / "new" / "x.json", value)
    assert atomic.read_json(tmp_path / "new" / "x.json") == value
    assert list(atomic.read_json(tmp_path / "new" / "x.json")) == ["b", "a", "c"]
    assert "ü" in (tmp_path / "new" / "x.json").read_text(encoding="utf-8")


def test_a_write_that_fails_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    atomic.write_bytes(path, b"old")

    def half(temp: Path) -> None:
        temp.write_bytes(b"ne")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        atomic.write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_explained_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(InputError, match=r"disk is full.*free.*--workspace DIR") as caught:
        atomic.write_bytes(tmp_path / "x", b"new")
    assert str(tmp_path / "x") in str(caught.value)
    assert names(tmp_path) == []


def test_another_os_error_is_not_called_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(PermissionError):
        atomic.write_bytes(tmp_path / "x", b"new")


def test_the_file_is_synced_before_its_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        is_folder = Path(f"/proc/self/fd/{descriptor}").resolve().is_dir()
        steps.append("sync folder" if is_folder else "sync file")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    atomic.write_bytes(tmp_path / "x", b"new")
    assert steps == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize(("text", "said"), [("{", "not readable as JSON"), ("[1]", "JSON object")])
def test_an_altered_json_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        atomic.read_json(tmp_path / "x.json")
    assert "x.json" in str(caught.value)


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: the file is missing"):
        atomic.read_json(tmp_path / "gone.json")


def test_a_folder_without_a_manifest_cannot_be_published(tmp_path: Path) -> None:
    temp = folder_with(tmp_path / ".tmp-1", "a", manifest=False)
    with pytest.raises(ValueError, match="no manifest"):
        atomic.publish_folder(temp, tmp_path / "final")


def test_the_first_published_folder_counts(tmp_path: Path) -> None:
    assert atomic.publish_folder(folder_with(tmp_path / ".tmp-1", "first"), tmp_path / "final")
    assert not atomic.publish_folder(folder_with(tmp_path / ".tmp-2", "second"), tmp_path / "final")
    assert (tmp_path / "final" / "data").read_text() == "first"
    assert names(tmp_path) == ["final"]


def test_a_half_written_folder_is_replaced(tmp_path: Path) -> None:
    folder_with(tmp_path / "final", "half", manifest=False)
    assert not atomic.is_complete(tmp_path / "final")
    assert atomic.publish_folder(folder_with(tmp_path / ".tmp-1", "whole"), tmp_path / "final")
    assert atomic.is_complete(tmp_path / "final")
    assert (tmp_path / "final" / "data").read_text() == "whole"


def test_work_that_does_not_fit_is_refused_with_both_sizes(tmp_path: Path) -> None:
    atomic.ensure_free(tmp_path / "not" / "there" / "yet", 1, "a byte")
    with pytest.raises(InputError, match=r"shards will need about 1000\.0 PB, but only .* free"):
        atomic.ensure_free(tmp_path, 10**18, "shards")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_000_000_000, "2.0 GB")],
)
def test_sizes_are_readable(n_bytes: int, text: str) -> None:
    assert size(n_bytes) == text


def test_only_old_temporary_names_are_removed(tmp_path: Path) -> None:
    for name in (".tmp-1-old", ".tmp-2-young", "kept"):
        (tmp_path / name).write_text("x")
    folder_with(tmp_path / ".tmp-3-folder", "x")
    past = time.time() - 100
    for path in (".tmp-1-old", "kept", ".tmp-3-folder", ".tmp-3-folder/data"):
        os.utime(tmp_path / path, (past, past))
    assert atomic.remove_stale_temps(tmp_path, older_than_s=50) == 1
    assert names(tmp_path) == [".tmp-2-young", ".tmp-3-folder", "kept"]  # its manifest is young
    assert atomic.remove_stale_temps(tmp_path, older_than_s=0) == 2
    assert names(tmp_path) == ["kept"]
    assert atomic.remove_stale_temps(tmp_path / "gone", older_than_s=0) == 0


def test_temporary_names_never_collide(tmp_path: Path) -> None:
    made = {atomic.temp_path(tmp_path / "x") for _ in range(100)}
    assert len(made) == 100
    assert all(path.name.startswith(f".tmp-{atomic._HOST}-{os.getpid()}-") for path in made)
