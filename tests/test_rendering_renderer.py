"""Rendering against a slow definition: characters one by one, tokens one by one."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from selection.core.errors import InputError
from selection.records import Rendered
from selection.rendering.renderer import Renderer, load_renderer, render_key
from tests import chat_templates, tiny_tokenizers
from tests.chat_templates import TEMPLATES, Pieces

WHOSE = {"all": ("prompt", "response"), "response": ("response",), "prompt": ("prompt",)}
LONG = 100_000


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one question": [user("What is a loop?"), assistant("A loop repeats.\n\nLike this.")],
    "own system text": [system("Be brief."), user("Why?"), assistant("Because.")],
    "several turns": [user("One?"), assistant("1"), user("Two?"), assistant("2")],
    "no last answer": [user("One?"), assistant("1"), user("Bye")],
    "contents like headers": [user("user"), assistant("assistant"), user("a"), assistant("m")],
    "repeated contents": [user("no"), assistant("no"), user("no"), assistant("no no")],
    "white space around": [user("  What?\n"), assistant("\n\n  def f():\n    pass\n\n")],
    "only white space": [user(" \n "), assistant("ok"), user("\t"), assistant("  ")],
    "empty": [user(""), assistant(""), user("x"), assistant("y")],
    "other scripts": [user("âgé 日本語?"), assistant("😀😀 né à — “quoted”")],
    "template words": [user("<think>no</think> is a tag"), assistant("2023\n\n26 Jul 2024")],
    "control tokens": [user("write <|im_start|> <|eot_id|>"), assistant("<|bos|><|im_end|>ok")],
    "newlines": [user("\n"), assistant("\n\n\na\n"), user("a\n\n\n\nb"), assistant("\r\n")],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def byte_tokenizer(folder: Path) -> Path:
    return tiny_tokenizers.byte_level(folder / "bytes")


def with_template(tokenizer: Path, template: str, folder: Path, **choices: Any) -> Renderer:
    path = folder / "template.jinja"
    path.write_text(template)
    given: dict[str, Any] = {"max_length": LONG, "constant_system": (), **choices}
    return load_renderer(tokenizer, template=str(path), **given)


@cache
def reader_of(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def slow_counted(tokenizer_folder: Path, pieces: Pieces, counted: str) -> Rendered:
    """Tokens and mask of the pieces: bytes of every token, one character after the other."""
    tokenizer = reader_of(tokenizer_folder)
    text = "".join(piece for piece, _ in pieces)
    # A content that is white space alone says nothing, and never counts.
    owner = [whose if piece.strip() else "" for piece, whose in pieces for _ in piece.encode()]
    ids = tokenizer(text, add_special_tokens=False).input_ids
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    alphabet = byte_alphabet()
    mask, at = [], 0
    for number in ids:
        token = tokenizer.convert_ids_to_tokens(number)
        size = len(token.encode()) if number in special else len([alphabet[c] for c in token])
        # A token with a part of a character shares the whole character.
        start, end = at, at + size
        while start > 0 and not is_character_start(text, start):
            start -= 1
        while not is_character_start(text, end):
            end += 1
        counts = any(whose in WHOSE[counted] for whose in owner[start:end])
        mask.append(counts and number not in special)
        at += size
    assert at == len(owner)
    return Rendered(
        np.array(ids, dtype=np.uint32), np.array(mask, dtype=np.bool_), len(ids), False, False
    )


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}


def is_character_start(text: str, at: int) -> bool:
    encoded = text.encode()
    return at >= len(encoded) or encoded[at] & 0xC0 != 0x80


def assert_same(found: Rendered, expected: Rendered, renderer: Renderer) -> None:
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.content_mask.tolist() == expected.content_mask.tolist(), renderer.marked_text(
        found
    )


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


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("template", ["auto", "plain"])
def test_bos_comes_exactly_once_and_never_counts(
    adds_bos: bool, template: str, tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.LLAMA3, adds_bos)
    renderer = load_renderer(tokenizer, template=template, max_length=LONG)
    rendered = renderer.render([user("Hi"), assistant("Hello")])
    bos = AutoTokenizer.from_pretrained(tokenizer).bos_token_id
    assert rendered.tokens[0] == bos
    assert (rendered.tokens == bos).sum() == 1
    assert not rendered.content_mask[0]


@pytest.mark.parametrize("adds_bos", [False, True])
def test_template_tokens_and_bos_count_where_that_is_asked(adds_bos: bool, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.LLAMA3, adds_bos)
    sample = [user("Hi"), assistant("Hello")]
    masks = {
        counted: load_renderer(tokenizer, counted=counted, max_length=LONG).render(sample)
        for counted in ("all", "all_and_template", "every_token")
    }
    everything = masks["every_token"]
    assert everything.content_mask.all()
    assert masks["all_and_template"].content_mask.tolist() == [False] + [True] * (
        len(everything.tokens) - 1
    )
    assert 0 < masks["all"].content_mask.sum() < len(everything.tokens) - 1
    assert len({render_key(found) for found in masks.values()}) == 3


def test_what_stands_around_an_encoders_text_counts_where_that_is_asked(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.word_piece(tmp_path / "t")
    counted = [
        load_renderer(tokenizer, counted=how, max_length=LONG)
        .render([user("the user")])
        .content_mask
        for how in ("all_and_template", "every_token")
    ]
    assert counted[0].tolist() == [False] + [True] * (len(counted[0]) - 1)
    assert counted[1].all()


def test_counted_text_is_the_content_alone(byte_tokenizer: Path) -> None:
    renderer = load_renderer(byte_tokenizer, max_length=LONG)
    rendered = renderer.render([user("Größe 猫"), assistant("two\nlines")])
    assert renderer.counted_text(rendered).split() == ["Größe", "猫", "two", "lines"]
    ids = rendered.tokens[rendered.content_mask]
    assert renderer.token_text(int(ids[0])) == "G"
    assert renderer.n_token_ids > int(ids.max())


def test_bos_is_added_where_the_tokenizer_adds_it_and_the_template_does_not(
    tmp_path: Path,
) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.CHATML, adds_bos=True)
    rendered = load_renderer(tokenizer, max_length=LONG).render([user("Hi"), assistant("Hello")])
    bos = AutoTokenizer.from_pretrained(tokenizer).bos_token_id
    assert rendered.tokens.tolist().count(bos) == 1
    assert rendered.tokens[0] == bos
    assert rendered.n_full == len(rendered.tokens)


def test_a_model_without_bos_gets_none(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.CHATML)
    rendered = load_renderer(tokenizer, max_length=LONG).render([user("Hi"), assistant("Hello")])
    bos = AutoTokenizer.from_pretrained(tokenizer).bos_token_id
    assert bos not in rendered.tokens


def test_encoders_get_their_tokens_around_the_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.word_piece(tmp_path / "t")
    renderer = load_renderer(tokenizer, max_length=LONG)
    rendered = renderer.render([user("The USER asks"), assistant("日 the system")])
    reader = AutoTokenizer.from_pretrained(tokenizer)
    expected = reader("User: The USER asks\n\nAssistant: 日 the system\n\n").input_ids
    assert rendered.tokens.tolist() == expected
    counted = reader.convert_ids_to_tokens(rendered.tokens[rendered.content_mask].tolist())
    assert counted == [*reader.tokenize("The USER asks"), "[UNK]", *reader.tokenize("the system")]
    short = load_renderer(tokenizer, max_length=8).render([user("the user asks a question")])
    assert len(short.tokens) == 8
    assert short.tokens[[0, -1]].tolist() == [reader.cls_token_id, reader.sep_token_id]
    assert not short.content_mask[[0, -1]].any()


def test_tokenizers_that_bind_spaces_to_words_count_the_word(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} {% endif %}{% endfor %}"
    )
    tokenizer = tiny_tokenizers.metaspace(tmp_path / "t", template)
    renderer = load_renderer(tokenizer, max_length=LONG)
    rendered = renderer.render([user("the user"), assistant("naïve 😀 system")])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert [text.strip() for text in counted] == ["the user", "naïve 😀 system"]
    assert rendered.tokens.tolist().count(1) == 1


def slow_truncation(rendered: Rendered, prompt: Rendered, limit: int, how: str) -> list[int]:
    """Positions kept, by dropping one token after the other."""
    kept = list(range(len(rendered.tokens)))
    while len(kept) > limit:
        if how == "end":
            kept.pop()
        elif how == "start":
            kept.pop(1)  # Position 0 is BOS.
        else:
            left = [at for at in kept if prompt.content_mask[at]]
            kept.remove(left[0] if left else kept[-1])
    return kept


@pytest.mark.parametrize("how", ["end", "start", "keep_response"])
def test_truncation_equals_dropping_tokens_one_by_one(how: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.CHATML, adds_bos=True)
    messages = [user("One long question?"), assistant("1 and 1"), user("Two?"), assistant("2")]
    whole = load_renderer(tokenizer, max_length=LONG).render(messages)
    prompt = load_renderer(tokenizer, max_length=LONG, counted="prompt").render(messages)
    for limit in (8, 9, 15, 20, 30, 31, len(whole.tokens) - 1, len(whole.tokens)):
        renderer = load_renderer(tokenizer, max_length=limit, truncation=how)
        found = renderer.render(messages)
        kept = slow_truncation(whole, prompt, limit, how)
        assert found.tokens.tolist() == whole.tokens[kept].tolist()
        assert found.content_mask.tolist() == whole.content_mask[kept].tolist()
        assert found.n_full == len(whole.tokens)
        assert found.truncated == (limit < len(whole.tokens))


def test_a_response_never_vanishes_silently(byte_tokenizer: Path, tmp_path: Path) -> None:
    messages = [user("long " * 50), assistant("short")]
    lost = with_template(byte_tokenizer, chat_templates.CHATML, tmp_path, max_length=60)
    assert lost.render(messages).response_lost
    assert lost.counts["response_lost"] == lost.counts["truncated"] == 1
    for how in ("start", "keep_response"):
        kept = with_template(
            byte_tokenizer, chat_templates.CHATML, tmp_path, max_length=60, truncation=how
        )
        rendered = kept.render(messages)
        assert rendered.truncated
        assert not rendered.response_lost
    whole = with_template(byte_tokenizer, chat_templates.CHATML, tmp_path)
    assert not whole.render(messages).response_lost
    assert not lost.render([user("long " * 50)]).response_lost  # There never was one.


def test_samples_without_anything_to_count_are_reported(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.CHATML, tmp_path, counted="response")
    rendered = renderer.render([user("A question without an answer")])
    assert not rendered.content_mask.any()
    assert renderer.counts["nothing_counted"] == 1


def test_a_batch_renders_as_its_samples_do_alone(byte_tokenizer: Path, tmp_path: Path) -> None:
    pairs = [(messages, None) for messages in CONVERSATIONS.values()]
    renderer = with_template(byte_tokenizer, chat_templates.LLAMA3, tmp_path)
    together = [render_key(rendered) for rendered in renderer.render_batch(pairs)]
    backwards = [render_key(rendered) for rendered in renderer.render_batch(pairs[::-1])]
    fresh = with_template(byte_tokenizer, chat_templates.LLAMA3, tmp_path)
    assert together == [render_key(fresh.render(messages)) for messages, _ in pairs]
    assert together == backwards[::-1]


def test_the_key_depends_on_tokens_and_mask_alone() -> None:
    def rendered(tokens: Sequence[int], counted: Sequence[bool], n_full: int = 9) -> Rendered:
        ids, mask = np.array(tokens, dtype=np.uint32), np.array(counted, dtype=np.bool_)
        return Rendered(ids, mask, n_full, True, False)

    base = render_key(rendered([1, 2], [False, True]))
    assert len(base) == 16
    assert render_key(rendered([1, 2], [False, True], n_full=5)) == base
    others = [rendered([1, 3], [False, True]), rendered([1, 2], [True, True]), rendered([], [])]
    assert len({base, *map(render_key, others)}) == 4


def test_the_rendering_id_names_every_setting(byte_tokenizer: Path, tmp_path: Path) -> None:
    def renderer_id(template: str = chat_templates.CHATML, **choices: Any) -> str:
        return with_template(byte_tokenizer, template, tmp_path, **choices).rendering_id

    other = tiny_tokenizers.byte_level(tmp_path / "other", adds_bos=True)
    ids = [
        renderer_id(),
        renderer_id(chat_templates.GEMMA),
        renderer_id(counted="response"),
        renderer_id(max_length=77),
        renderer_id(truncation="start"),
        renderer_id(constant_system=["x"]),
        with_template(other, chat_templates.CHATML, tmp_path).rendering_id,
    ]
    assert len(set(ids)) == len(ids)
    assert renderer_id() == ids[0]


def test_all_rows_of_the_tiny_pool_render(
    tiny_model_dir: Path, tiny_pool_rows: list[Mapping[str, Any]]
) -> None:
    renderer = load_renderer(tiny_model_dir, max_length=512)
    for row, rendered in zip(
        tiny_pool_rows,
        renderer.render_batch([(row["messages"], None) for row in tiny_pool_rows]),
        strict=True,
    ):
        counted = [text for text, counts in renderer.marked_text(rendered) if counts]
        assert counted == [message["content"] for message in row["messages"]]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"counted": "answers"}, r"`counted`.*'answers'.*all, response, prompt"),
        ({"truncation": "middle"}, r"`truncation`.*end, start, keep_response"),
        ({"max_length": 2}, r"`max_length`.*found: 2"),
        ({"template": "missing.jinja"}, r"missing.jinja.*cannot be read"),
    ],
)
def test_wrong_settings_are_refused(
    byte_tokenizer: Path, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_renderer(byte_tokenizer, **({"max_length": 100} | choices))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", "line 1.*does not render"),
        ("{{ raise_exception('never') }}", "does not render.*never"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out the content"),
    ],
)
def test_broken_template_files_are_refused(
    byte_tokenizer: Path, tmp_path: Path, template: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        with_template(byte_tokenizer, template, tmp_path)


def test_a_tokenizers_own_broken_template_falls_back_to_plain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tiny_tokenizers.byte_level(tmp_path / "t", "{{ raise_exception('no') }}")
    with caplog.at_level(logging.WARNING):
        renderer = load_renderer(broken, max_length=LONG)
    assert "plain text" in caplog.text
    text = renderer.marked_text(renderer.render([user("Hi"), assistant("Hello")]))
    assert "".join(piece for piece, _ in text) == "User: Hi\n\nAssistant: Hello\n\n"


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer can be loaded"):
        load_renderer(tmp_path, max_length=100)
