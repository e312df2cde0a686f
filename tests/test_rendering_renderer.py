"""Which tokens count, against a slow definition: characters one by one, tokens one by one."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.rendering.renderer import Renderer
from tests import chat_templates, tiny_tokenizers
from tests.chat_templates import TEMPLATES
from tests.rendering_cases import (
    CONVERSATIONS,
    WHOSE,
    assert_same,
    assistant,
    slow_counted,
    system,
    user,
    with_template,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def byte_tokenizer(folder: Path) -> Path:
    return tiny_tokenizers.byte_level(folder / "bytes")


@pytest.mark.parametrize("counted", WHOSE)
@pytest.mark.parametrize("name", TEMPLATES)
def test_counted_tokens_equal_the_slow_definition(
    name: str, counted: str, byte_tokenizer: Path, tmp_path: Path
) -> None:
    template, pieces_of = TEMPLATES[name]
    renderer = with_template(byte_tokenizer, template, tmp_path, counted=counted)
    for messages in CONVERSATIONS.values():
        expected = slow_counted(byte_tokenizer, pieces_of(messages), counted)
        assert_same(renderer.render(messages), expected, renderer)
    assert renderer.counts["searched"] == 0


WORDS = [
    "user",
    "assistant",
    "a",
    " ",
    "\n",
    "\n\n",
    "  x",
    "né",
    "日本",
    "😀",
    "2",
    "system",
    "m.",
]
TURNS = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map("".join), min_size=2, max_size=6)


@pytest.fixture(scope="module")
def renderers(byte_tokenizer: Path, folder: Path) -> dict[str, Renderer]:
    names = ("chatml", "llama3", "gemma")
    return {name: with_template(byte_tokenizer, TEMPLATES[name][0], folder) for name in names}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(contents=TURNS)
def test_any_contents_are_counted_as_the_slow_definition_says(
    renderers: dict[str, Renderer], byte_tokenizer: Path, contents: list[str]
) -> None:
    messages = [assistant(text) if i % 2 else user(text) for i, text in enumerate(contents)]
    for name, renderer in renderers.items():
        expected = slow_counted(byte_tokenizer, TEMPLATES[name][1](messages), "all")
        assert_same(renderer.render(messages), expected, renderer)


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma"])
def test_decoded_counted_tokens_are_the_content(
    name: str, byte_tokenizer: Path, tmp_path: Path
) -> None:
    renderer = with_template(byte_tokenizer, TEMPLATES[name][0], tmp_path, counted="response")
    content = "Sure:\n\n    def f(x):\n\n        return 'é 日本 😀'\n\nDone."
    rendered = renderer.render([user("A function?"), assistant(content)])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert counted == [content]


def test_a_text_the_template_inserts_never_counts(byte_tokenizer: Path, tmp_path: Path) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.LLAMA3, tmp_path)
    rendered = renderer.render([user("Today Date"), assistant("December 2023")])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert counted == ["Today Date", "December 2023"]


def test_constant_system_texts_do_not_count(byte_tokenizer: Path, tmp_path: Path) -> None:
    messages = [system(" You are a helpful assistant.\n"), user("Hi"), assistant("Hello")]
    template = chat_templates.CHATML
    named = with_template(
        byte_tokenizer, template, tmp_path, constant_system=["You are a helpful assistant."]
    )
    counted = [text for text, counts in named.marked_text(named.render(messages)) if counts]
    assert counted == ["Hi", "Hello"]
    other = with_template(byte_tokenizer, template, tmp_path)
    counted = [text for text, counts in other.marked_text(other.render(messages)) if counts]
    assert counted == [" You are a helpful assistant.\n", "Hi", "Hello"]


def test_reasoning_counts_where_the_template_writes_it(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.THINKER, tmp_path)
    messages = [
        user("One?"),
        assistant("1", reasoning_content="earlier, which the template drops"),
        user("Two?"),
        assistant("2", reasoning_content="\none and one\n"),
    ]
    found = renderer.render(messages)
    expected = slow_counted(byte_tokenizer, chat_templates.thinker_pieces(messages), "all")
    assert_same(found, expected, renderer)
    assert renderer.counts["searched"] == 0


def test_reasoning_inside_the_content_is_found_when_the_template_moves_it(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.THINKER, tmp_path)
    messages = [
        user("One?"),
        assistant("<think>\nearlier\n</think>\n\n1"),
        user("Two?"),
        assistant("<think>one\n\nand one</think>2"),
    ]
    found = renderer.render(messages)
    expected = slow_counted(byte_tokenizer, chat_templates.thinker_pieces(messages), "all")
    assert_same(found, expected, renderer)


TOOL_CALLS = [
    {"id": "c1", "function": {"name": "get", "arguments": {"city": "Orléans", "days": 3}}},
    {"id": "c2", "function": {"name": "name", "arguments": '{"q": "a \\"b\\"\\n"}'}},
    {"id": "c3", "function": {"name": "now", "arguments": {}}},
]


def test_tool_calls_and_results_count(byte_tokenizer: Path, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "get", "description": "weather"}}]
    messages = [
        user("Weather?"),
        assistant(None, tool_calls=TOOL_CALLS),
        {"role": "tool", "content": '{"sky": "clear"}', "tool_call_id": "c1"},
        assistant("Clear."),
    ]
    for counted in WHOSE:
        renderer = with_template(byte_tokenizer, chat_templates.TOOLS, tmp_path, counted=counted)
        found = renderer.render(messages, tools)
        pieces = chat_templates.tools_pieces(messages, tools)
        assert_same(found, slow_counted(byte_tokenizer, pieces, counted), renderer)
        assert renderer.counts["searched"] == 0


def test_arguments_written_as_tags_are_found_one_by_one(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% for call in m.tool_calls %}<{{ call.function.name }}>"
        "{% for key, value in call.function.arguments.items() %}"
        "<arg={{ key }}>{{ value }}</arg>{% endfor %}</call>{% endfor %}{% endfor %}"
    )
    renderer = with_template(byte_tokenizer, template, tmp_path, counted="response")
    calls = [TOOL_CALLS[0], TOOL_CALLS[2]]
    rendered = renderer.render([user("Weather?"), assistant("", tool_calls=calls)])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert counted == ["get", "city", "Orléans", "days", "3", "now"]
    assert renderer.counts["searched"] == 0


def test_templates_that_expect_arguments_as_text_get_them(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% for call in m.tool_calls %}"
        "{{ '<call>' + call.function.arguments + ' to ' + call.function.name + '</call>' }}"
        "{% endfor %}{% endfor %}"
    )
    renderer = with_template(byte_tokenizer, template, tmp_path, counted="response")
    calls = [TOOL_CALLS[0], TOOL_CALLS[2]]
    rendered = renderer.render([user("Weather?"), assistant("", tool_calls=calls)])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert counted == ['{"city": "Orléans", "days": 3}', "get", "now"]
    assert renderer.counts["as_is"] == 1


def test_old_function_calls_are_tool_calls(byte_tokenizer: Path, tmp_path: Path) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.TOOLS, tmp_path, counted="response")
    call = {"name": "get", "arguments": '{"city": "Rome"}'}
    rendered = renderer.render([user("?"), {"role": "assistant", "function_call": call}])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert counted == ["get", '{"city": "Rome"}']


def test_contents_in_parts_are_joined(byte_tokenizer: Path, tmp_path: Path) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.CHATML, tmp_path)
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    joined = renderer.render([user(parts), assistant("ok")])
    plain = renderer.render([user("one two"), assistant("ok")])
    assert joined.tokens.tolist() == plain.tokens.tolist()


def test_a_refused_system_text_is_folded_into_the_user_turn(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    messages = [system("  Be brief.\n"), user("Why?\n"), assistant("Because.")]
    renderer = with_template(byte_tokenizer, chat_templates.GEMMA, tmp_path)
    found = renderer.render(messages)
    text = "".join(text for text, _ in renderer.marked_text(found))
    assert "user\nBe brief.\n\n\nWhy?<end_of_turn>" in text
    assert renderer.counts["simplified"] == 1
    expected = slow_counted(byte_tokenizer, chat_templates.gemma_pieces(messages), "all")
    assert_same(found, expected, renderer)


def test_turns_that_do_not_alternate_are_joined(byte_tokenizer: Path, tmp_path: Path) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.GEMMA, tmp_path)
    messages = [assistant("Hi!"), user("One."), user("Two."), assistant("Three.")]
    messages.append({"role": "tool", "content": "4"})
    found = renderer.render(messages)
    counted = [text for text, counts in renderer.marked_text(found) if counts]
    assert counted == ["Hi!", "One.", "Two.", "Three.", "4"]
    assert renderer.counts["simplified"] == 1


def test_what_the_template_refuses_altogether_is_plain(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    template = (
        "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}"
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    renderer = with_template(byte_tokenizer, template, tmp_path)
    found = renderer.render([user("One."), assistant("Two."), user("Three.")])
    text = "".join(text for text, _ in renderer.marked_text(found))
    assert text == "User: One.\n\nAssistant: Two.\n\nUser: Three.\n\n"
    counted = [text for text, counts in renderer.marked_text(found) if counts]
    assert counted == ["One.", "Two.", "Three."]
    assert renderer.counts["plain"] == 1


def test_a_template_that_rewrites_contents_does_not_crash(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content | replace('x', 'yy') }}{% endfor %}"
    )
    renderer = with_template(byte_tokenizer, template, tmp_path)
    rendered = renderer.render([user("runs\na fox\nin a box\nruns"), assistant("no change")])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert counted == ["runs", "runs", "no change"]


def test_what_a_template_keeps_of_a_content_counts_whole(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}{% endfor %}"
    )
    renderer = with_template(byte_tokenizer, template, tmp_path)
    rendered = renderer.render([user("Why?"), assistant("<think>\nhm\n</think>\n\nIt is\n\nso.")])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert counted == ["Why?", "It is\n\nso."]


def test_tools_change_the_text_around_the_same_messages(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.TOOLS, tmp_path)
    messages = [user("get"), assistant("get it")]
    for name in ("get", "look"):
        tools = [{"type": "function", "function": {"name": name}}]
        pieces = chat_templates.tools_pieces(messages, tools)
        expected = slow_counted(byte_tokenizer, pieces, "all")
        assert_same(renderer.render(messages, tools), expected, renderer)
    assert renderer.counts["searched"] == 0


def test_a_template_whose_own_text_depends_on_contents_is_searched(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    template = (
        "{{ messages[0].content | length }} characters: "
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    renderer = with_template(byte_tokenizer, template, tmp_path)
    rendered = renderer.render([user("question"), assistant("answer")])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert counted == ["question", "answer"]
    assert renderer.counts["searched"] == 1
