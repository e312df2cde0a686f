"""A text many times too long is cut before it is tokenized, and keeps the same tokens."""

import random
from pathlib import Path
from typing import Any

import pytest

from selection.rendering import renderer as module
from selection.rendering.renderer import load_renderer

WORDS = ("the", "a", "Größe", "猫が好き", "x = 3", "don't", "…", "\t", "1,024", "🙂", "longer")


def words(seed: int, n: int) -> str:
    order = random.Random(seed)
    return "".join(order.choice(WORDS) + order.choice((" ", " ", "\n", "  \n\n")) for _ in range(n))


def talk(prompt: str, answer: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "More?"},
        {"role": "assistant", "content": "No."},
    ]


@pytest.mark.parametrize("truncation", ["end", "start", "keep_response"])
@pytest.mark.parametrize("counted", ["all", "response"])
@pytest.mark.parametrize("long", ["prompt", "answer", "both"])
def test_the_tokens_kept_are_those_of_the_whole_text(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, truncation: str, counted: str, long: str
) -> None:
    prompt = words(1, 6000 if long != "answer" else 3)
    answer = words(2, 6000 if long != "prompt" else 3)
    settings: dict[str, Any] = {"max_length": 24, "truncation": truncation, "counted": counted}
    cut = load_renderer(tiny_model_dir, **settings).render(talk(prompt, answer))
    monkeypatch.setattr(module, "CHARACTERS_PER_TOKEN", 1 << 20)
    whole = load_renderer(tiny_model_dir, **settings).render(talk(prompt, answer))
    assert cut.tokens.tolist() == whole.tokens.tolist()
    assert cut.content_mask.tolist() == whole.content_mask.tolist()
    assert (cut.truncated, cut.response_lost) == (whole.truncated, whole.response_lost)
    assert cut.n_full == pytest.approx(whole.n_full, rel=0.2)


def test_a_text_of_few_tokens_gets_more_room(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHARACTERS_PER_TOKEN", 1)
    messages = talk(words(3, 2000), "Yes.")
    found = load_renderer(tiny_model_dir, max_length=64).render(messages)
    monkeypatch.setattr(module, "CHARACTERS_PER_TOKEN", 1 << 20)
    whole = load_renderer(tiny_model_dir, max_length=64).render(messages)
    assert found.tokens.tolist() == whole.tokens.tolist()
