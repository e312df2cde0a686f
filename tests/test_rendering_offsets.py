"""Where tokens lie in a sample's turns: read back character by character."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selection.data.messages.normalize import turn_texts
from selection.rendering.offsets import TurnPositions
from selection.rendering.renderer import Renderer, load_renderer
from tests import tiny_tokenizers
from tests.chat_templates import TEMPLATES
from tests.rendering_cases import CONVERSATIONS, assistant, user


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizers.byte_level(tmp_path_factory.mktemp("places"))


def renderer_of(tokenizer: Path, folder: Path, template: str, **choices: Any) -> Renderer:
    path = folder / "template.jinja"
    path.write_text(template)
    settings: dict[str, Any] = {"max_length": 10_000, "constant_system": (), **choices}
    return load_renderer(tokenizer, template=str(path), **settings)


def marked(places: TurnPositions, turns: list[str]) -> list[str]:
    """The turns with every character that no token claims replaced by a dot."""
    shown = [["·"] * len(text) for text in turns]
    for turn, start, end in zip(places.turns, places.starts, places.ends, strict=True):
        if turn >= 0:
            assert 0 <= start <= end <= len(turns[turn])
            shown[turn][start:end] = turns[turn][start:end]
    return ["".join(text) for text in shown]


@pytest.mark.parametrize("name", sorted(CONVERSATIONS))
@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_word_of_every_turn_is_claimed(
    name: str, template: str, tokenizer: Path, tmp_path: Path
) -> None:
    messages = CONVERSATIONS[name]
    renderer = renderer_of(tokenizer, tmp_path, TEMPLATES[template][0])
    rendered, places = renderer.render_with_positions(messages)
    plain = renderer.render(messages)
    assert np.array_equal(rendered.tokens, plain.tokens)
    assert np.array_equal(rendered.content_mask, plain.content_mask)
    assert len(places.turns) == int(rendered.content_mask.sum())
    turns = turn_texts(messages)
    if name in ("control tokens", "template words"):
        return  # special tokens that a content spells out never count; some templates cut thoughts
    for shown, turn in zip(marked(places, turns), turns, strict=True):
        assert [c for c in shown if c != "·"] or not turn.strip()
        hidden = [c for c, s in zip(turn, shown, strict=True) if s != c and not c.isspace()]
        assert hidden == []


def test_repeated_texts_are_told_apart_and_tool_calls_are_found(
    tokenizer: Path, tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}"
        "[{{ c.function.name }}|{{ c.function.arguments | tojson }}]{% endfor %}{% endfor %}"
    )
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": "one", "b": "two"}}}
    messages = [user("add one"), assistant("", tool_calls=[call]), user("add one")]
    renderer = renderer_of(tokenizer, tmp_path, template)
    _, places = renderer.render_with_positions(messages)
    turns = turn_texts(messages)
    shown = marked(places, turns)
    assert shown[0] == shown[2] == "add one"
    assert shown[1].replace("·", " ").split() == ["add", "a", "one", "b", "two"]
    assert (np.diff(places.turns[places.turns >= 0]) >= 0).all()


@pytest.mark.parametrize("truncation", ["end", "start"])
def test_truncated_samples_claim_what_is_left(
    truncation: str, tokenizer: Path, tmp_path: Path
) -> None:
    messages = [user("first words " * 20), assistant("last words " * 20)]
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    renderer = renderer_of(
        tokenizer, tmp_path, template, max_length=40, truncation=truncation, counted="all"
    )
    rendered, places = renderer.render_with_positions(messages)
    shown = marked(places, turn_texts(messages))
    assert "".join(shown).replace("·", "").split() == renderer.counted_text(rendered).split()
    assert ("first" in shown[0]) == (truncation == "end")
