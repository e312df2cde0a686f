from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import storage.pools.renderings
from selection.core.errors import InputError
from selection.records import Rendered
from selection.rendering.renderer import render_key
from storage.pools.renderings import RenderedPool, open_rendering, rows_done, write_rendering

SETTINGS = {"max_length": 8}


def samples(n: int, seed: int = 0) -> list[Rendered]:
    """Random token lists and masks: empty ones, all counted, none counted, and mixtures."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        size = int(rng.integers(0, 9))
        tokens = rng.integers(0, 70_000, size).astype(np.uint32)
        share = (0.0, 0.5, 1.0)[i % 3]
        counted = rng.random(size) < share
        lost = not counted.any() and i % 2 == 0
        made.append(Rendered(tokens, counted, size + i % 4, i % 4 > 0, lost))
    return made


def assert_same(found: list[Rendered], expected: list[Rendered]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.content_mask, b.content_mask)
        assert (a.n_full, a.truncated, a.response_lost) == (b.n_full, b.truncated, b.response_lost)


def test_what_is_written_is_read_back_in_any_order(tmp_path: Path) -> None:
    made = samples(50)
    write_rendering(tmp_path / "r", [made[:20], made[20:43], made[43:]], SETTINGS)
    rendered = open_rendering(tmp_path / "r")
    rows = np.random.default_rng(1).permutation(50)
    assert_same(rendered.samples(rows), [made[row] for row in rows])


def test_columns_and_totals_are_those_of_the_samples(tmp_path: Path) -> None:
    made = samples(30)
    write_rendering(tmp_path / "r", [made[:7], made[7:]], SETTINGS)
    rendered = open_rendering(tmp_path / "r")
    assert rendered.lengths().tolist() == [len(s.tokens) for s in made]
    assert rendered.full_lengths().tolist() == [s.n_full for s in made]
    assert rendered.n_counted().tolist() == [int(s.content_mask.sum()) for s in made]
    assert rendered.usable().tolist() == [bool(s.content_mask.any()) for s in made]
    lost = [s.response_lost and not s.content_mask.any() for s in made]
    assert rendered.response_truncated().tolist() == lost
    keys = rendered.keys()
    assert [bytes(key) for key in keys] == [render_key(s) for s in made]
    assert rendered.totals == {
        "n_tokens": sum(len(s.tokens) for s in made),
        "n_counted": sum(int(s.content_mask.sum()) for s in made),
        "n_truncated": sum(s.truncated for s in made),
        "n_response_lost": sum(s.response_lost for s in made),
    }


def test_equal_renderings_need_one_vector(tmp_path: Path) -> None:
    made = [s for s in samples(12) if s.content_mask.any()]
    write_rendering(tmp_path / "r", [made, made], SETTINGS)
    rendered = open_rendering(tmp_path / "r")
    assert len(rendered) == 2 * len(made)
    assert rendered.n_usable == len({render_key(s) for s in made})


def test_a_killed_rendering_goes_on_behind_its_last_part(tmp_path: Path) -> None:
    made = samples(20)

    def killed() -> object:
        yield made[:8]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rendering(tmp_path / "r", killed(), SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not rendered"):
        open_rendering(tmp_path / "r")
    assert rows_done(tmp_path / "r") == 8
    write_rendering(tmp_path / "r", [made[8:]], SETTINGS)
    write_rendering(tmp_path / "whole", [made[:8], made[8:]], SETTINGS)
    assert_same(open_rendering(tmp_path / "r").samples(np.arange(20)), made)
    parts = [pq.read_table(tmp_path / r / "part-000001.parquet") for r in ("r", "whole")]
    assert parts[0].equals(parts[1])


def test_a_finished_rendering_is_left_alone(tmp_path: Path) -> None:
    write_rendering(tmp_path / "r", [samples(3)], SETTINGS)

    def never() -> object:
        raise AssertionError("asked for samples again")
        yield

    write_rendering(tmp_path / "r", never(), SETTINGS)  # type: ignore[arg-type]


def test_rows_in_token_order_stand_beside_their_like_and_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    made = [
        Rendered(rng.integers(0, 2, 10).astype(np.uint32), np.ones(10, np.bool_), 10, False, False)
        for _ in range(120)
    ]
    parts = [made[first : first + 10] for first in range(0, 120, 10)]  # of 100 tokens each
    write_rendering(tmp_path / "r", parts, SETTINGS)
    monkeypatch.setattr(storage.pools.renderings, "HELD_TOKENS", 800)
    rendered = open_rendering(tmp_path / "r")
    read, held = [], []
    run = RenderedPool._read_part

    def reading(self: RenderedPool, number: int) -> tuple[np.ndarray, ...]:
        held.append(sum(len(tokens) for tokens, *_ in self._held.values()))
        read.append(number)
        return run(self, number)

    monkeypatch.setattr(RenderedPool, "_read_part", reading)
    wanted = np.flatnonzero(rng.random(120) < 0.8)
    found = rendered.in_token_order(wanted)
    assert sorted(found.tolist()) == wanted.tolist()
    n_runs = 1 + sum(
        made[a].tokens.tolist() > made[b].tokens.tolist() for a, b in pairwise(found.tolist())
    )
    assert n_runs == 3  # ascending within each of three stretches
    assert_same(rendered.samples(found), [made[row] for row in found])
    assert len(read) <= 2 * 12 + 4  # to sort and to read; a part on a border is read again
    assert max(held) <= 800


def test_nothing_is_in_any_order(tmp_path: Path) -> None:
    write_rendering(tmp_path / "r", [samples(3)], SETTINGS)
    found = open_rendering(tmp_path / "r").in_token_order(np.zeros(0, np.int64))
    assert found.dtype == np.int64
    assert not len(found)
