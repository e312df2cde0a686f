"""Messages to tokens: what the model reads, and which of its tokens count as the sample's own.

A token counts if at least one of its characters is content of a message (or of a tool call) that
the setting `counted` asks for. BOS, role headers, end-of-turn tokens, texts the template writes
itself, tool definitions and constant system texts never count; neither does a content of white
space alone, a special token that a content happens to spell out, nor an assistant turn whose weight
is 0 or that says `train: false`. Reasoning and tool calls are content of their turn.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.data.messages.normalize import Tools, normalize_messages, turn_texts
from selection.models.hub import fetch_tokenizer
from selection.models.resolve import ResolvedModel
from selection.records import Rendered
from selection.rendering.conversations import TextWriter, WrittenText
from selection.rendering.long_texts import (
    CHARACTERS_PER_TOKEN,
    Cut,
    cuts_of,
    hides_response,
    is_safe,
    restored,
    without,
)
from selection.rendering.offsets import TurnPositions, positions_in_turns
from selection.rendering.spans import Part
from selection.rendering.templates import (
    PLAIN_TEMPLATE,
    TEMPLATE_DATE,
    ChatTemplate,
    template_from_file,
    working_template,
    writes_first,
)
from selection.rendering.tokenizer import TokenReader, load_tokenizer
from selection.rendering.truncation import kept_positions, token_parts

COUNTED = {
    "all": (Part.PROMPT, Part.RESPONSE),
    "response": (Part.RESPONSE,),
    "prompt": (Part.PROMPT,),
    "all_and_template": (Part.TEMPLATE, Part.PROMPT, Part.RESPONSE),
    "every_token": (Part.TEMPLATE, Part.PROMPT, Part.RESPONSE),
}
"""What may count: all contents, assistant turns only, or all other turns; all contents and what
the template writes around them; and these with what the model expects first (BOS)."""

TRUNCATIONS = ("end", "start", "keep_response")

CONSTANT_SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a helpful AI assistant.",
    "You are an AI assistant.",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
)
"""System texts that say nothing about a sample: templates write them where a sample has none."""

_Encoded = tuple[NDArray[np.uint32], NDArray[np.int64], list[Cut]]
_FORMAT = 2  # Raised whenever the same settings would render differently.
MIN_LENGTH = 8


class Renderer:
    """Renders samples with one tokenizer, template and set of rules; see `load_renderer`.

    settings: everything that decides what a sample renders to, as JSON data.
    counts:   number of samples so far that were rendered as_is; simplified (the template refused
              the sample: system texts were folded into user turns, tool turns renamed, turns
              joined); plain (it refused that too); and of all those, searched (contents were
              found by search alone), truncated, response_lost, nothing_counted.
    """

    def __init__(
        self,
        tokens: TokenReader,
        template: ChatTemplate,
        plain: ChatTemplate,
        *,
        counted: str,
        max_length: int,
        truncation: str,
        constant_system: Sequence[str],
    ) -> None:
        """Use `load_renderer`, which checks the arguments."""
        constant = frozenset(text.strip() for text in constant_system)
        self._tokens, self._writer = tokens, TextWriter(template, plain, constant)
        self._max_length, self._truncation = max_length, truncation
        self._counts_part = np.zeros(len(Part), dtype=np.bool_)
        self._counts_part[list(COUNTED[counted])] = True
        self._counts_prefix = counted == "every_token"
        self._counts_suffix = counted in ("all_and_template", "every_token")
        self.counts = self._writer.counts
        self.settings: dict[str, Any] = {
            "format": _FORMAT,
            "tokenizer": tokens.sha256,
            "template": hashlib.sha256(template.text.encode()).hexdigest(),
            "template_variables": template.variables,
            "template_date": TEMPLATE_DATE,
            "counted": counted,
            "max_length": max_length,
            "truncation": truncation,
            "constant_system": sorted(constant),
        }

    @property
    def rendering_id(self) -> str:
        """Id of the settings: equal ids render equal samples to equal tokens."""
        return content_id(self.settings)

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Tools | None = None) -> Rendered:
        """Render one sample; see `render_batch`."""
        return self.render_batch([(messages, tools)])[0]

    def render_batch(
        self, samples: Iterable[tuple[Sequence[Mapping[str, Any]], Tools | None]]
    ) -> list[Rendered]:
        """Render (messages, tools) pairs, in their order; a sample's result is its own alone.

        Of an iterator each sample is let go once it is written.
        """
        written = [
            self._writer.write(normalize_messages(messages), tools or None)
            for messages, tools in samples
        ]
        return [
            self._finish(text, *encoded)[0]
            for text, encoded in zip(written, self._encode(written), strict=True)
        ]

    def count_tokens(
        self, samples: Iterable[tuple[Sequence[Mapping[str, Any]], Tools | None]]
    ) -> list[int]:
        """Tokens of each sample for a trainer, which hands it to the template as it is."""
        written = [
            self._writer.write_as_given(messages, tools or None) for messages, tools in samples
        ]
        pairs = zip(written, self._encode(written), strict=True)
        return [
            len(self._finish(text, *encoded, is_counted=False)[0].tokens) for text, encoded in pairs
        ]

    def render_with_positions(
        self, messages: Sequence[Mapping[str, Any]], tools: Tools | None = None
    ) -> tuple[Rendered, TurnPositions]:
        """Render one sample, and say where in its turns each of its counted tokens lies."""
        written = self._writer.write(normalize_messages(messages), tools or None)
        [(ids, offsets, cuts)] = self._encode([written])
        rendered, origins = self._finish(written, ids, offsets, cuts)
        places = positions_in_turns(written.text, offsets, written.spans, turn_texts(messages))
        # What the model expects around the text has no origin in it: one more row, of no turn.
        nowhere = TurnPositions(
            *(np.append(x, -1) for x in (places.turns, places.starts, places.ends))
        )
        return rendered, nowhere.at(origins[rendered.content_mask])

    def marked_text(self, rendered: Rendered) -> list[tuple[str, bool]]:
        """The text of a rendered sample in runs of (text, whether its tokens count)."""
        bounds = np.flatnonzero(np.diff(rendered.content_mask)) + 1
        runs = np.split(rendered.tokens, bounds) if len(rendered.tokens) else []
        starts = [0, *bounds.tolist()]
        return [
            (self._tokens.decode(run), bool(rendered.content_mask[start]))
            for run, start in zip(runs, starts, strict=False)
        ]

    def decode(self, tokens: NDArray[np.uint32]) -> str:
        """Text of some tokens, special ones included."""
        return self._tokens.decode(tokens)

    @property
    def pad_id(self) -> int:
        """Token id that fills rows up; see `TokenReader`."""
        return self._tokens.pad_id

    @property
    def n_token_ids(self) -> int:
        """Number of different token ids that a rendering may hold."""
        return len(self._tokens.is_special)

    def token_text(self, token: int) -> str:
        """What one token id stands for."""
        return self._tokens.decode(np.array([token], np.uint32))

    def counted_text(self, rendered: Rendered) -> str:
        """The text of the counted tokens; what lies apart stays apart, on lines of its own."""
        return "\n".join(text for text, counts in self.marked_text(rendered) if counts)

    def _encode(self, written: Sequence[WrittenText], scale: int = 1) -> list[_Encoded]:
        """Ids, offsets in the text, and what was cut out of it before; see `long_texts`.

        scale: grows until no token that is kept lies near a cut.
        """
        room = scale * CHARACTERS_PER_TOKEN * self._max_length
        cuts = [cuts_of(text.text, text.spans, room, self._truncation) for text in written]
        texts = [without(text.text, cut) for text, cut in zip(written, cuts, strict=True)]
        encoded: list[_Encoded] = []
        pairs = zip(self._tokens.encode_batch(texts), written, cuts, strict=True)
        for (ids, offsets), text, cut in pairs:
            whole = restored(offsets, cut) if cut else offsets
            if cut and not self._keeps_safe(text, ids, whole, cut):
                encoded += self._encode([text], scale * 4)
            else:
                encoded.append((ids, whole, cut))
        return encoded

    def _keeps_safe(
        self,
        written: WrittenText,
        ids: NDArray[np.uint32],
        offsets: NDArray[np.int64],
        cuts: Sequence[Cut],
    ) -> bool:
        """Whether truncation keeps no token near a cut."""
        _, origins = self._finish(written, ids, offsets, cuts, is_counted=False)
        return is_safe(offsets[origins[origins >= 0]], cuts)

    def _finish(
        self,
        written: WrittenText,
        ids: NDArray[np.uint32],
        offsets: NDArray[np.int64],
        cuts: Sequence[Cut],
        *,
        is_counted: bool = True,
    ) -> tuple[Rendered, NDArray[np.int64]]:
        """Add what the model expects around the text, mark what counts, truncate.

        is_counted: whether the sample goes into `counts`.
        Returns also (t,) which of the text's own tokens each one is, -1 for what was added.
        """
        n_cut = sum(end - start for start, end in cuts)
        n_hidden = round(n_cut * len(ids) / max(1, len(written.text) - n_cut))
        prefix = np.array(self._tokens.prefix, dtype=np.uint32)
        suffix = np.array(self._tokens.suffix if written.is_plain else (), dtype=np.uint32)
        has_prefix = np.array_equal(ids[: len(prefix)], prefix)
        origins = np.arange(len(ids))
        parts = token_parts(offsets, written.spans)
        parts[self._tokens.is_special[ids]] = Part.TEMPLATE
        if not has_prefix:
            ids = np.concatenate([prefix, ids])
            parts = np.concatenate([np.zeros(len(prefix), dtype=parts.dtype), parts])
            origins = np.concatenate([np.full(len(prefix), -1), origins])
        n_full = len(ids) + n_hidden + len(suffix)
        kept = kept_positions(
            parts, self._max_length - len(suffix), self._truncation, n_prefix=len(prefix)
        )
        truncated = len(kept) < len(ids) or bool(cuts)
        had_response = bool((parts == Part.RESPONSE).any()) or hides_response(written.spans, cuts)
        ids, parts, origins = ids[kept], parts[kept], origins[kept]
        response_lost = truncated and had_response and not (parts == Part.RESPONSE).any()
        counted = self._counts_part[parts]
        if not self._counts_prefix:
            counted[: len(prefix)] = False
        if len(suffix):
            ids, origins = (
                np.concatenate([ids, suffix]),
                np.append(origins, np.full(len(suffix), -1)),
            )
            counted = np.concatenate([counted, np.full(len(suffix), self._counts_suffix)])
        if is_counted:
            self.counts["truncated"] += truncated
            self.counts["response_lost"] += bool(response_lost)
            self.counts["nothing_counted"] += not counted.any()
        return Rendered(ids, counted, n_full, truncated, bool(response_lost)), origins


def render_key(rendered: Rendered) -> bytes:
    """16 bytes of SHA-256 over token ids and counted mask: all of a sample that a vector sees."""
    digest = hashlib.sha256(rendered.tokens.astype("<u4").tobytes())
    digest.update(rendered.content_mask.astype(np.uint8).tobytes())
    return digest.digest()[:16]


def renderer_for(model: ResolvedModel, *, max_length: int, **options: str) -> Renderer:
    """The tokenizer and template of a model; options as in `load_renderer`.

    Never longer than what the model was made for: behind that, activations mean nothing.
    """
    longest = min(max_length, model.max_positions or max_length)
    return load_renderer(model.path, max_length=longest, gguf_file=model.gguf_file, **options)


def load_renderer(
    tokenizer: str | Path,
    revision: str | None = None,
    *,
    template: str = "auto",
    counted: str = "all",
    max_length: int,
    truncation: str = "end",
    constant_system: Sequence[str] = CONSTANT_SYSTEM_TEXTS,
    gguf_file: str | None = None,
) -> Renderer:
    """Load a tokenizer and its chat template.

    tokenizer:       folder or Hugging Face name of a tokenizer or model.
    revision:        branch, tag or commit, for a name.
    template:        "auto" is the tokenizer's own, or plain where it has none; "plain" writes
                     "Role: content" paragraphs; anything else is the path of a Jinja file.
    counted:         "all", "response" or "prompt"; see COUNTED.
    max_length:      longest sample in tokens, BOS included.
    truncation:      "end", "start" or "keep_response"; see `kept_positions`.
    constant_system: system texts that are no content, compared without surrounding space.
    gguf_file:       file of the folder that holds the tokenizer where no other does.

    Raises InputError for unknown settings, a missing tokenizer and a broken template file.
    """
    _check_choice("counted", counted, tuple(COUNTED))
    _check_choice("truncation", truncation, TRUNCATIONS)
    if max_length < MIN_LENGTH:
        raise InputError(
            f"samples of fewer than {MIN_LENGTH} tokens hold no turn",
            remedy="Set max_length to what the model is to see, e.g. 1024.",
            field="max_length",
            value=max_length,
        )
    tokens = load_tokenizer(fetch_tokenizer(str(tokenizer), revision), gguf_file)
    plain = ChatTemplate(PLAIN_TEMPLATE, tokens.variables)
    own = working_template(tokens.chat_template, tokens.variables) if tokens.chat_template else None
    if own and writes_first(own, tokens.variables.get("bos_token")):
        tokens.expect_bos()
    chosen = (own if template == "auto" else None) or plain
    if template not in ("auto", "plain"):
        chosen = template_from_file(Path(template), tokens.variables)
    return Renderer(
        tokens,
        chosen,
        plain,
        counted=counted,
        max_length=max_length,
        truncation=truncation,
        constant_system=constant_system,
    )


def _check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(
            "no such choice", remedy=f"Use one of: {', '.join(choices)}.", field=field, value=value
        )
