"""What counts as a response, and which turns may be learned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selection.core.printable import printable
from selection.data.messages.contents import has_response, is_trained_on
from selection.rendering.renderer import load_renderer
from tests.tiny_tokenizers import byte_level

USER = {"role": "user", "content": "Again?"}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


@pytest.mark.parametrize(
    ("turn", "responds"),
    [
        (assistant("Yes."), True),
        (assistant([{"type": "text", "text": "Yes."}]), True),
        (assistant(" \n"), False),
        (assistant([{"type": "text", "text": " "}]), False),
        (assistant(None), False),
        (assistant("", reasoning_content="Think."), True),
        (assistant(None, tool_calls=[{"function": {"name": "f", "arguments": {}}}]), True),
        (assistant("Yes.", weight=0), False),
        (assistant("Yes.", weight=1), True),
        (assistant("Yes.", train=False), False),
        (assistant("Yes.", train="false"), False),
        (assistant("Yes.", loss_mask=0.0), False),
        (USER, False),
    ],
)
def test_a_response_says_something_and_may_be_learned(turn: dict[str, Any], responds: bool) -> None:
    assert has_response([USER, turn]) == responds


def test_a_weight_that_is_null_or_positive_leaves_the_turn_learned() -> None:
    for weight in (None, 1, 0.5, True, "1"):
        assert is_trained_on(assistant("Yes.", weight=weight))


@pytest.mark.parametrize("counted", ["all", "response", "all_and_template", "every_token"])
def test_a_turn_of_no_weight_is_read_and_never_counts(tiny_model_dir: Path, counted: str) -> None:
    messages = [USER, assistant("Wrong zig zag.", weight=0), USER, assistant("Right.", weight=1)]
    renderer = load_renderer(tiny_model_dir, max_length=128, counted=counted)
    rendered = renderer.render(messages)
    plain = renderer.render([{k: v for k, v in m.items() if k != "weight"} for m in messages])
    assert np.array_equal(rendered.tokens, plain.tokens)
    counts = "".join(text for text, is_counted in renderer.marked_text(rendered) if is_counted)
    assert "Right." in counts
    assert "zig" not in counts


def test_what_a_template_does_not_know_is_read_all_the_same(tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text(
        "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}{% endfor %}"
    )

    renderer = load_renderer(byte_level(tmp_path / "t"), max_length=400, template=str(template))
    call = {"type": "function", "function": {"name": "weigh", "arguments": {"grams": 7}}}
    messages = [USER, assistant(None, tool_calls=[call], reasoning_content="Think hard.")]
    rendered = renderer.render([*messages, {"role": "tool", "content": "9"}, assistant("Nine.")])
    text = renderer.counted_text(rendered)
    for words in ("Think hard.", "weigh", "grams", "Nine."):
        assert words in text


def test_controls_and_marks_of_direction_are_spelled_out() -> None:
    text = "a\x1b[2J\rb\u202ec\u200b\x9b\td\ne\x00\ufeff"
    assert printable(text) == "a\\x1b[2J\\rb\\u202ec\\u200b\\x9b\td\ne\\x00\\ufeff"
    assert printable("Größe, 猫, 🙂, é") == "Größe, 猫, 🙂, é"
