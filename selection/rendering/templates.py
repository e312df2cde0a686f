"""Chat templates: compile a Jinja text as transformers does, but without today's date.

Some templates write the current day into the system text. The same sample would then be a different
sample tomorrow, with a new forward pass and a new vector, so the day is a constant here.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from json import dumps
from pathlib import Path
from typing import Any, cast

import jinja2
from jinja2 import nodes
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

_MOST = 1_000_000
_MOST_WORK = 50_000_000
"""Of one rendering: 100 a call, filter or loop, 20 an item and 1 a character that these get."""
_WORK_A_CHARACTER = 50
"""That the conversation's own length adds to it: no honest template reads a text more often."""

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
    RecursionError,
    MemoryError,
)
"""What a template can raise on a sample that it was not written for."""


class ChatTemplate:
    """A compiled chat template; call it with messages and tools to get the text.

    text:      the Jinja source.
    variables: what the template may name beside messages and tools, e.g. bos_token.
    """

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        """Compile; raises jinja2.TemplateSyntaxError, also for a number of nine digits or more."""
        if far := re.search(r"\d{9,}", text):
            line = text[: far.start()].count("\n") + 1
            raise jinja2.TemplateSyntaxError(f"the number {far[0]} is too large", line)
        self.text = text
        self._environment = _environment()
        self._template = self._environment.from_string(text)
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
        self._environment.work = -_WORK_A_CHARACTER * _spelled_size([messages, tools], {})
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

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Replace the block by its body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _PlainNamespace(Namespace):
    """A namespace that keeps templates, which are foreign code, away from Python's internals."""

    def __setitem__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a template may not set {name!r}")
        super().__setitem__(name, value)


_STRUCTURAL = frozenset((
    "attr", "batch", "count", "d", "default", "dictsort", "first", "groupby", "items", "last",
    "length", "list", "map", "max", "min", "reject", "rejectattr", "reverse", "select",
    "selectattr", "slice", "sort", "unique",
))  # fmt: skip  # names, several a line
"""Filters that look at the items of what they get; all others may spell it out."""


class _BoundedSandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which nothing goes on for ever, and one number cannot ask for gigabytes.

    No product or method goes beyond _MOST, and one rendering not beyond _MOST_WORK. That is
    counted, not timed, so the same sample meets the same end on every machine.
    """

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    work = 0

    def counted(self, value: Any) -> Any:
        """The value; raises SecurityError where the rendering has done too much."""
        size = len(value) if isinstance(value, str | list | tuple | range) else 0
        return self._add(value, 100 + (size if isinstance(value, str) else 20 * size))

    def spelled(self, value: Any) -> Any:
        """As `counted`, for what is written or compared, with everything in it."""
        return self._add(value, 100 + _spelled_size(value, {}))

    def _add(self, value: Any, work: int) -> Any:
        self.work += work
        if self.work > _MOST_WORK:
            raise jinja2.exceptions.SecurityError("a template may not go on for so long")
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Whatever is looped over, filtered, joined, compared or written is counted first."""
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = _counting(loop.iter)
        for call in tree.find_all(nodes.Filter):
            if call.node is not None and call.name not in ("counted", "spelled"):
                call.node = _counting(call.node, spelled=call.name not in _STRUCTURAL)
        for joined in tree.find_all(nodes.Concat):
            joined.nodes = [_counting(node, spelled=True) for node in joined.nodes]
        for written in tree.find_all(nodes.Output):
            written.nodes = [_counting(node, spelled=True) for node in written.nodes]
        for compared in tree.find_all(nodes.Compare):
            compared.expr = _counting(compared.expr, spelled=True)
            for operand in compared.ops:
                operand.expr = _counting(operand.expr, spelled=True)
        return tree

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Add, multiply or format; raises SecurityError for what is too long or too large."""
        self.counted(left)
        self.counted(right)
        if operator == "%" and isinstance(left, str):
            self._add(None, left.count("%") * _spelled_size(right, {}))
        if operator in ("+", "%"):
            return super().call_binop(context, operator, left, right)
        sizes = [len(side) for side in (left, right) if hasattr(side, "__len__")]
        numbers = [abs(side) for side in (left, right) if isinstance(side, int)]
        most = _MOST if isinstance(left, str) or isinstance(right, str) else _MOST // 100
        if sizes and numbers and sizes[0] * numbers[0] > most:
            raise jinja2.exceptions.SecurityError(f"a template may not repeat {numbers[0]} times")
        if operator == "**" and numbers and max(numbers) > 1000:
            raise jinja2.exceptions.SecurityError(f"a template may not compute {left} ** {right}")
        return super().call_binop(context, operator, left, right)

    def call(self, context: jinja2.runtime.Context, obj: Any, *args: Any, **named: Any) -> Any:
        """Call; raises SecurityError where a method of a text is handed a large number."""
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            _refuse_far(*args, *named.values())
            handed = _spelled_size([args, named], {})
            if obj.__name__ in ("translate", "maketrans", "format_map"):
                raise jinja2.exceptions.SecurityError(f"a template may not use {obj.__name__}")
            if obj.__name__ == "replace":
                handed = (owner.count(str(args[0])) if args else 0) * handed
            elif obj.__name__ == "format":
                handed *= owner.count("{")
            elif obj.__name__ == "join":
                handed += len(owner) * sum(len(each) for each in args if hasattr(each, "__len__"))
            self._add(None, handed)
        for each in args:
            self.counted(each)
        return self.counted(super().call(context, obj, *args, **named))

    def _replace(self, text: object, old: str, new: str, count: int | None = None) -> str:
        self._add(None, str(text).count(str(old)) * len(str(new)))
        return str(text).replace(str(old), str(new), -1 if count is None else count)

    def _join(self, value: Any, d: str = "", attribute: str | int | None = None) -> str:
        items = list(value)
        self._add(None, len(items) * len(str(d)) + _spelled_size(items, {}))
        return jinja2.filters.sync_do_join(nodes.EvalContext(self), items, str(d), attribute)

    def _format(self, value: object, *args: Any, **named: Any) -> str:
        self._add(None, str(value).count("%") * _spelled_size(named or args, {}))
        return jinja2.filters.do_format(str(value), *args, **named)

    def _indent(
        self, text: str, width: int | str = 4, first: bool = False, blank: bool = False
    ) -> str:
        size = len(width) if isinstance(width, str) else abs(width)
        self._add(None, str(text).count("\n") * size)
        _refuse_far(width)
        return jinja2.filters.do_indent(text, width, first, blank)


def _spelled_size(value: object, known: dict[int, int]) -> int:
    """Characters of a value when it is written, about; lists that hold one thing often count so.

    known: id of a list or dict -> its size, so that each is looked through once.
    """
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, list | tuple | dict):
        return 20
    if id(value) not in known:
        known[id(value)] = 0
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 2 + sum(2 + _spelled_size(each, known) for each in inside)
    return known[id(value)]


def _counting(node: nodes.Node, *, spelled: bool = False) -> nodes.Expr:
    """The node, its value counted; parts of the template's own text are as they are."""
    expression = cast(nodes.Expr, node)
    if isinstance(node, nodes.TemplateData | nodes.Const):
        return expression
    name = "spelled" if spelled else "counted"
    return nodes.Filter(expression, name, [], [], None, None, lineno=node.lineno)


def _refuse_far(*values: object) -> None:
    if any(isinstance(value, int) and abs(value) > _MOST for value in values):
        raise jinja2.exceptions.SecurityError("a template may not pad a text so far")


def _center(text: object, width: int = 80) -> str:
    _refuse_far(width)
    return str(text).center(width)


def _batch(value: Any, linecount: int, fill_with: object = None) -> Any:
    _refuse_far(100 * linecount)
    return jinja2.filters.do_batch(value, linecount, fill_with)


def _environment() -> _BoundedSandbox:
    """The sandbox that transformers renders chat templates in, with a fixed day."""
    environment = _BoundedSandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters |= {"tojson": _to_json, "center": _center, "indent": environment._indent}
    environment.filters |= {"replace": environment._replace, "join": environment._join}
    environment.filters |= {"format": environment._format, "batch": _batch}
    environment.filters |= {"counted": environment.counted, "spelled": environment.spelled}
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
    _refuse_far(1000 * (indent or 0))
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
