"""Chat templates: compile a Jinja text as transformers does, but without today's date.

Some templates write the current day into the system text. The same sample would then be a different
sample tomorrow, with a new forward pass and a new vector, so the day is a constant here.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from json import dumps
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from selection.core.errors import InputError
from selection.data.messages.normalize import Message, Tools
from selection.rendering.spans import cut_at_markers, marker

logger = logging.getLogger(__name__)

TEMPLATE_DATE = "2024-07-26"
"""The day every template sees; the one that Llama 3 templates use where no clock is offered."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message.role | capitalize }}: "
    "{% if message.reasoning_content %}{{ message.reasoning_content + '\n' }}{% endif %}"
    "{{ message.content }}"
    "{% if message.content and message.tool_calls %}{{ '\n' }}{% endif %}"
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}"
    "{{ '\n\n' }}"
    "{% endfor %}"
)
"""For tokenizers without a chat template, and for samples that a template refuses to render."""

TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
)
"""What a template can raise on a sample that it was not written for."""


class ChatTemplate:
    """A compiled chat template; call it with messages and tools to get the text.

    text:      the Jinja source.
    variables: what the template may name beside messages and tools, e.g. bos_token.
    """

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        """Compile; raises jinja2.TemplateSyntaxError."""
        self.text = text
        self._template = _environment().from_string(text)
        self.variables = dict(variables)

    @cached_property
    def writes_reasoning(self) -> bool:
        """Whether it writes the reasoning of a last turn."""
        thought = {"reasoning_content": marker(2), "thinking": marker(2)}
        try:
            return marker(2) in self([_PROBE[0], _PROBE[1] | thought])
        except TEMPLATE_ERRORS:
            return False

    def __call__(self, messages: Sequence[Message], tools: Tools | None = None) -> str:
        """Render one conversation without a generation prompt; raises one of TEMPLATE_ERRORS."""
        return self._template.render(
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=False,
            **self.variables,
        )


_PROBE: list[Message] = [
    {"role": "user", "content": marker(0)},
    {"role": "assistant", "content": marker(1)},
]


def working_template(text: str, variables: Mapping[str, str]) -> ChatTemplate | None:
    """A tokenizer's template, or None with a warning if it cannot render plain conversations."""
    try:
        template = ChatTemplate(text, variables)
        rendered = template(_PROBE)
    except TEMPLATE_ERRORS as error:
        logger.warning("the tokenizer's chat template does not work, using plain text: %s", error)
        return None
    if cut_at_markers(rendered).slots != (0, 1):
        logger.warning("the tokenizer's chat template ignores text contents, using plain text")
        return None
    return template


def writes_first(template: ChatTemplate, token: str | None) -> bool:
    """Whether the template begins every conversation with this token (BOS)."""
    return bool(token) and template(_PROBE).startswith(str(token))


def template_from_file(path: Path, variables: Mapping[str, str]) -> ChatTemplate:
    """A user's Jinja file; raises InputError if it cannot render a question with its answer."""
    try:
        template = ChatTemplate(path.read_text(encoding="utf-8"), variables)
        rendered = template(_PROBE)
    except OSError as error:
        raise InputError(
            f"the chat template cannot be read ({error.strerror})",
            remedy='Use "auto", "plain" or the path of a Jinja file.',
            file=path,
            field="template",
        ) from error
    except TEMPLATE_ERRORS as error:
        raise InputError(
            f"the chat template does not render one question with its answer ({error})",
            remedy="Test it with tokenizer.apply_chat_template.",
            file=path,
            line=getattr(error, "lineno", None),
            field="template",
        ) from error
    if cut_at_markers(rendered).slots != (0, 1):
        raise InputError(
            "the chat template leaves out the content of a question or of its answer",
            remedy="Write message['content'] for every message.",
            file=path,
            field="template",
        )
    return template


class _GenerationTag(Extension):
    """Accepts `{% generation %}`, which marks assistant text for training; it writes nothing."""

    tags = {"generation"}  # noqa: RUF012 - declared so by jinja2

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        """Replace the block by its body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _PlainNamespace(Namespace):
    """A namespace that keeps templates, which are foreign code, away from Python's internals."""

    def __setitem__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a template may not set {name!r}")
        super().__setitem__(name, value)


def _environment() -> ImmutableSandboxedEnvironment:
    """The sandbox that transformers renders chat templates in, with a fixed day."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["namespace"] = _PlainNamespace
    environment.globals["dict"] = _make_dict
    return environment


def _make_dict(*args: Any, **values: Any) -> dict[str, Any]:
    return dict(*args, **values)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML characters, which no model was trained on.
    return dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


_strftime_now: Callable[[str], str] = datetime.fromisoformat(TEMPLATE_DATE).strftime
