"""Datasets of the Hugging Face hub, without a network."""

from pathlib import Path
from typing import Any

import pytest

from selection.core.errors import InputError
from selection.data.containers import huggingface
from selection.data.read import read_pool
from selection.records import PoolSource


def refusal(path: Path | str, **settings: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        list(read_pool(PoolSource(str(path), **settings)))
    return caught.value


class FakeDataset:
    """What `load_dataset(streaming=True)` gives, as far as the reader knows it."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows

    def decode(self, enable: bool) -> list[dict[str, object]]:
        assert not enable
        return self.rows


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: object) -> dict[str, object]:
    """Let `load_dataset` give `answer`, or raise it; returns what it was asked."""
    import datasets

    asked: dict[str, object] = {}

    def load_dataset(path: str, **settings: object) -> object:
        asked.update(settings, path=path)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_dataset_of_the_hub_is_streamed_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_hub(monkeypatch, {"train": FakeDataset([{"text": "x"}, {"text": "y"}])})
    source = PoolSource("org/data", subset="en", revision="a" * 40)
    (batch,) = read_pool(source)
    assert batch.rows["row"].to_pylist() == [1, 2]
    assert set(batch.rows["file"].to_pylist()) == {"org/data"}
    assert set(batch.rows["source"].to_pylist()) == {"org/data"}
    wanted = {"path": "org/data", "name": "en", "split": None, "revision": "a" * 40}
    assert asked == wanted | {"streaming": True}


@pytest.mark.parametrize(
    ("answer", "field", "words"),
    [
        ({"train": FakeDataset([]), "test": FakeDataset([])}, "split", "['test', 'train']"),
        (ConnectionError("Couldn't reach 'org/data' on the Hub"), "path", "cannot be reached"),
        (ValueError('Bad split: x. Available splits: ["train"]'), "split", "Available splits"),
        (ValueError("BuilderConfig 'x' not found. Available: ['en']"), "subset", "['en']"),
        (FileNotFoundError("403 Client Error"), "path", "gated or private"),
        (RuntimeError("Dataset scripts are no longer supported"), "path", "scripts are no longer"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_explained(
    monkeypatch: pytest.MonkeyPatch, answer: object, field: str, words: str
) -> None:
    fake_hub(monkeypatch, answer)
    error = refusal("org/data", revision="a" * 40)
    assert error.field == field
    assert words in str(error)


def test_a_hub_that_cannot_be_reached_is_said_before_any_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = refusal("org/data")
    assert "no such file or folder here, and the Hugging Face hub cannot be reached" in str(error)
    assert "HF_HUB_OFFLINE is set" in error.remedy


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("RepositoryNotFoundError", "401 Client Error. private or gated repo", "no such dataset"),
        ("GatedRepoError", "403 Client Error", "gated"),
        ("RevisionNotFoundError", "404 Client Error", "no such revision"),
        ("OfflineModeIsEnabled", "offline mode is enabled", "cannot be reached"),
        ("DatasetNotFoundError", "Dataset 'a/b' doesn't exist on the Hub", "no such dataset"),
    ],
)
def test_errors_of_the_hub_have_their_sentence(name: str, text: str, words: str) -> None:
    error = type(name, (OSError,), {})(text)
    assert words in huggingface.explain(PoolSource("a/b", revision="v9"), error).problem
