"""Conversations, small tokenizers and the slow definition that rendering is compared with."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from selection.records import Rendered
from selection.rendering.renderer import Renderer, load_renderer
from tests.chat_templates import Pieces

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
