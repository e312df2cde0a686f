"""Chat templates write what transformers writes, on every day the same; foreign code stays out."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest
from transformers import AutoTokenizer

from selection.data.messages.normalize import normalize_messages, simplify_messages, write_arguments
from selection.rendering import templates
from selection.rendering.templates import PLAIN_TEMPLATE, TEMPLATE_ERRORS, ChatTemplate
from tests import tiny_tokenizers
from tests.chat_templates import TEMPLATES

MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": " What?\n"},
    {"role": "assistant", "content": "<think>\nwell\n</think>\n\nThis & <that>."},
    {"role": "user", "content": "And é?"},
    {
        "role": "assistant",
        "content": "Yes.",
        "tool_calls": [
            {"type": "function", "function": {"name": "look", "arguments": {"q": "é<b>"}}}
        ],
    },
]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
GENERATION = (
    "{% for m in messages %}"
    "{%- if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% continue %}{% endif %}|{% endfor %}"
)


@pytest.mark.parametrize("name", [*TEMPLATES, "generation"])
def test_templates_write_what_transformers_writes(name: str, tmp_path: Path) -> None:
    text = TEMPLATES[name][0] if name in TEMPLATES else GENERATION
    folder = tiny_tokenizers.byte_level(tmp_path, text)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = ChatTemplate(text, {"bos_token": "<|bos|>"})
    expected = tokenizer.apply_chat_template(MESSAGES, tools=TOOLS, tokenize=False)
    today = datetime.now().strftime("%d %b %Y")
    assert template(MESSAGES, TOOLS) == expected.replace(today, "26 Jul 2024")


def test_the_day_is_a_constant() -> None:
    template = ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", {})
    assert template([]) == "2024-07-26"


def test_plain_text_names_every_role() -> None:
    template = ChatTemplate(PLAIN_TEMPLATE, {})
    messages = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    assert template(normalize_messages(messages)) == (
        "System: Be brief.\n\n"
        "User:  What?\n\n\n"
        "Assistant: <think>\nwell\n</think>\n\nThis & <that>.\n\n"
        "User: And é?\n\n"
        'Assistant: Yes.\n[{"type": "function", '
        '"function": {"name": "look", "arguments": {"q": "é<b>"}}}]\n\n'
    )


@pytest.mark.parametrize(
    "text",
    [
        "{{ messages.__class__.__mro__ }}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{{ messages.append(1) }}",
    ],
)
def test_templates_cannot_reach_python(text: str) -> None:
    with pytest.raises(jinja2.exceptions.SecurityError):
        ChatTemplate(text, {})([{"role": "user", "content": "x"}])


def test_messages_get_one_form() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"]
    call = {"name": "f", "arguments": '{"x": 1}'}
    assert normalize_messages(
        [
            {"role": "developer", "content": parts, "name": None},
            {"role": "assistant", "content": None, "function_call": call, "reasoning": "why"},
            {"role": "function", "content": {"b": 2, "a": "é"}, "name": "f"},
            {"role": "assistant", "tool_calls": [{"id": "1", **call, "arguments": "no json"}]},
        ]
    ) == [
        {"role": "system", "content": "abc"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "why",
            "thinking": "why",
            "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {"role": "tool", "content": '{"a":"é","b":2}', "name": "f"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "id": "1", "function": {"name": "f", "arguments": "no json"}}
            ],
        },
    ]


def test_simplified_messages_alternate() -> None:
    messages = normalize_messages(
        [
            {"role": "assistant", "content": "Hello."},
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": "", "tool_calls": MESSAGES[3]["tool_calls"]},
            {"role": "tool", "content": "4"},
        ]
    )
    assert simplify_messages(messages) == [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Be brief.\n\nQ"},
        {"role": "assistant", "content": '{"name": "look", "arguments": {"q": "é<b>"}}'},
        {"role": "user", "content": "4"},
    ]


def test_arguments_become_text_once() -> None:
    messages = normalize_messages(MESSAGES[2:])
    once = write_arguments(messages)
    assert once[1]["tool_calls"][0]["function"]["arguments"] == '{"q": "é<b>"}'
    assert write_arguments(once) == once
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {"q": "é<b>"}


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10 ** 9 }}",
        "{{ 100000000 * [1] }}",
        "{{ 'a'.center(100000000) }}",
        "{{ 'a' | center(100000000) }}",
        "{{ 'a' | indent(100000000) }}",
        "{{ '%010000000000d' % 3 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_a_template_cannot_ask_for_gigabytes(text: str) -> None:
    with pytest.raises(TEMPLATE_ERRORS):
        ChatTemplate(text, {})([{"role": "user", "content": "Hello"}])


ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "recursive": "{% for x in [1] recursive %}{{ loop([1, 2]) if loop.depth < 60 }}{% endfor %}",
    "filters": "{% set r = range(99999) | list %}"
    "{% for a in range(99999) %}{% set x = r | sum %}{% endfor %}",
    "doubled": "{% set n = namespace(t='ab') %}"
    "{% for a in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}",
    "added": "{% set n = namespace(t=[1, 2]) %}"
    "{% for a in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}",
    "replaced": "{% set n = namespace(t='aa') %}"
    "{% for a in range(60) %}{% set n.t = n.t.replace('a', n.t) %}{% endfor %}",
    "filtered": "{% set n = namespace(t='aa') %}"
    "{% for a in range(60) %}{% set n.t = n.t | replace('a', n.t) %}{% endfor %}",
    "joined": "{% set n = namespace(t='aa') %}"
    "{% for a in range(60) %}{% set n.t = [n.t, n.t] | join(n.t) %}{% endfor %}",
    "method": "{% set n = namespace(t='aa') %}"
    "{% for a in range(60) %}{% set n.t = n.t.join([n.t, n.t]) %}{% endfor %}",
    "formatted": "{% set n = namespace(t='aa') %}"
    "{% for a in range(60) %}{% set n.t = '%s%s' % (n.t, n.t) %}{% endfor %}",
    "handed over": "{% set n = namespace(t='%(a)s' * 9999) %}"
    "{% for a in range(60) %}{% set n.t = n.t % {'a': n.t} %}{% endfor %}",
    "nested": "{% set n = namespace(t=[1]) %}"
    "{% for a in range(60) %}{% set n.t = [1, n.t, n.t] %}{% endfor %}{{ n.t }}",
    "nested as JSON": "{% set n = namespace(t=[1]) %}"
    "{% for a in range(60) %}{% set n.t = {'a': n.t, 'b': n.t} %}{% endfor %}{{ n.t | tojson }}",
    "compared": "{% set n = namespace(t=[1], u=[1]) %}{% for a in range(60) %}"
    "{% set n.t = [n.t, n.t] %}{% set n.u = [n.u, n.u] %}{% endfor %}{{ n.t == n.u }}",
    "indented": "{{ ('\\n' * 99999) | indent(99999) }}",
    "translated": "{{ 'a'.translate({97: 'b'}) }}",
    "batched": "{{ [1] | batch(99999999, 'x') | list | length }}",
    "searched": "{% set r = range(99999) | list %}"
    "{% for a in range(99999) %}{% if -1 in r %}{% endif %}{% endfor %}",
    "written": "{% for a in range(99999) %}{{ messages | tojson }}{% endfor %}",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_that_goes_on_for_ever_is_ended(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tenth of the work that is allowed; none would end within days."""
    monkeypatch.setattr(templates, "_MOST_WORK", templates._MOST_WORK // 10)
    template, begun = ChatTemplate(ENDLESS[kind], {}), time.process_time()
    with pytest.raises(TEMPLATE_ERRORS):
        template([{"role": "user", "content": "Hello " * 100}])
    assert time.process_time() - begun < 10


def test_a_long_conversation_is_no_endless_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is allowed by the length of what is written: 50 MB in one turn are rendered too."""
    monkeypatch.setattr(templates, "_MOST_WORK", 10_000)
    template = ChatTemplate(PLAIN_TEMPLATE, {})
    messages = [{"role": "user", "content": "word " * 1000}] * 1000
    assert len(template(normalize_messages(messages))) > 5_000_000


def test_a_template_may_multiply_and_pad() -> None:
    template = ChatTemplate("{{ 'ab' * 3 }}{{ 2 * 3 }}{{ 2 ** 8 }}{{ 'x' | center(5) }}.", {})
    assert template([]) == "ababab6256  x  ."
