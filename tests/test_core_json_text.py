"""Long lines of JSON are decoded in pieces, to the value that the whole line has."""

import json
import random
import tracemalloc

import pytest

from selection.core import json_text
from selection.core.hashing import canonical_bytes, canonical_json
from selection.core.json_text import DECODER, decoded_utf8, parsed

PARTS = ["a", " ", "  ", "\\", '"', "\n", "é", "猫", "🙂", "\u2028", "\\u0041", "word ", '\\"']


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "LONG", 24)
    monkeypatch.setattr(json_text, "_PIECE", 5)


def random_value(rng: random.Random, depth: int = 3) -> object:
    kind = rng.randrange(6 if depth else 3)
    if kind < 3:
        return "".join(rng.choices(PARTS, k=rng.choice([0, 3, 40])))
    if kind == 3:
        return rng.choice([None, True, 1, 2.5, -(10**30)])
    items = [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return items if kind == 4 else {f"{n} {rng.choice(PARTS)}": v for n, v in enumerate(items)}


@pytest.mark.usefixtures("short_pieces")
def test_random_lines_have_the_value_of_the_whole_line() -> None:
    rng, n_long = random.Random(0), 0
    for _ in range(2_000):
        value = {"value": random_value(rng)}
        spelled = json.dumps(value, ensure_ascii=rng.random() < 0.5)
        read, text = decoded_utf8(spelled.encode())
        assert read == value == DECODER.decode(spelled)
        n_long += text != spelled
    assert n_long > 500


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize(
    "line",
    [
        b'{"a": "' + b"x " * 30 + b'\xff"}',
        b'{"a": "' + b"x " * 30 + b'\t"}',
        b'{"a": "' + b"x " * 30 + b'\\ "}',
        b'{"a": "' + b"x " * 30 + b'\\"}',
        b'{"a": "' + b"x " * 30 + b'", "a": 1}',
        b'{"a": "' + b"x " * 30 + b'" "b"}',
    ],
)
def test_a_line_that_is_broken_is_refused_in_the_same_words(line: bytes) -> None:
    with pytest.raises(ValueError) as whole:  # noqa: PT011 - the words are compared
        DECODER.decode(line.decode())
    with pytest.raises(ValueError) as read:  # noqa: PT011 - as above
        decoded_utf8(line)
    assert str(read.value) == str(whole.value)


@pytest.mark.usefixtures("short_pieces")
def test_half_characters_stay_for_the_reader_to_refuse() -> None:
    line = b'{"a": "' + b"x " * 30 + b'\\ud83d"}'
    assert decoded_utf8(line) == (DECODER.decode(line.decode()), line.decode())


def test_canonical_bytes_are_canonical_json() -> None:
    long = "".join(random.Random(1).choices(PARTS, k=200_000))
    value = [{"role": "user", "content": long, "n": [1, None, 0.5, {}]}, {}, [], long, "é"]
    assert canonical_bytes(value) == canonical_json(value).encode()


def test_one_wide_character_does_not_make_the_line_wide() -> None:
    text = "Write it down. " * 400_000 + "🙂"  # four bytes a character in memory, one in the line
    line = json.dumps({"prompt": "Say it.", "completion": text}, ensure_ascii=False).encode()
    tracemalloc.start()
    try:
        value, _ = decoded_utf8(line)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert value == {"prompt": "Say it.", "completion": text}
    assert peak < 7 * len(text)  # twice four would be the line and its value


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 100_000, "9" * 10_000, b"\xff", "{"])
def test_what_is_no_json_of_a_file_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(text)
