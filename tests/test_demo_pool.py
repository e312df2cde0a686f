"""The demo pool is what its generator writes, varied, and right wherever an answer is computed."""

import contextlib
import json
import re
import sqlite3
from collections import Counter
from datetime import date, timedelta
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.demo_pool import build, incidents, measure
from benchmarks.demo_pool.exemplars import TARGETS
from benchmarks.demo_pool.families import COUNTS, TEMPLATES
from benchmarks.demo_pool.measures import UNITS
from benchmarks.demo_pool.review_words import GENERAL, REMARKS
from benchmarks.demo_pool.rows import Draft, text_of
from selection.exemplars import read_exemplars
from selection.ids import canonical_json, example_id
from selection.pool.read import read_pool
from selection.records import PoolSource

ROWS = build.pool_rows()


@pytest.fixture(scope="module")
def written() -> list[dict[str, Any]]:
    return [json.loads(line) for line in build.POOL.read_text(encoding="utf-8").splitlines()]


def drafts(family: str) -> list[Draft]:
    chosen = [row.draft for row in ROWS if row.family == family]
    assert chosen
    return chosen


def single(family: str) -> list[Draft]:
    """Samples whose last answer is the one the facts describe."""
    return [d for d in drafts(family) if [m["role"] for m in d.messages].count("user") == 1]


def answer(draft: Draft) -> str:
    return str(draft.messages[-1]["content"])


# The files


def test_generating_again_gives_the_committed_bytes() -> None:
    for path, content in build.files().items():
        assert path.read_bytes() == content, f"{path}: run python -m benchmarks.demo_pool"


def test_another_seed_gives_another_pool() -> None:
    assert build.pool_rows(1)[0].value != ROWS[0].value


def test_every_family_has_its_rows_and_the_pool_stays_small() -> None:
    counts = Counter(row.family for row in ROWS)
    n_copies = len(ROWS) - sum(COUNTS.values())
    assert set(counts) == set(COUNTS) == set(TEMPLATES)
    assert all(0 <= counts[family] - n <= n_copies for family, n in COUNTS.items())
    assert len(COUNTS) >= 14
    assert len(ROWS) >= 2000
    assert build.POOL.stat().st_size < 2_500_000


def test_no_template_fills_more_than_two_percent() -> None:
    template, n = Counter(row.draft.template for row in ROWS).most_common(1)[0]
    assert n <= 0.02 * len(ROWS), template


def test_templates_are_named_after_their_family() -> None:
    assert all(row.draft.template.startswith(f"{row.family}/") for row in ROWS)


def test_two_in_a_hundred_are_copies_under_another_source_and_licence() -> None:
    copies: dict[str, list[dict[str, object]]] = {}
    for row in ROWS:
        key = example_id(row.draft.messages, row.draft.tools)
        copies.setdefault(key, []).append(row.value)
    groups = [group for group in copies.values() if len(group) > 1]
    assert sum(len(group) - 1 for group in groups) == round(0.02 * sum(COUNTS.values()))
    for group in groups:
        for column in ("id", "source", "licence"):
            assert len({row[column] for row in group}) == len(group)


def test_there_is_something_to_show_for_every_feature(written: list[dict[str, Any]]) -> None:
    roles = [[m["role"] for m in row["messages"]] for row in written]
    assert sum(r.count("user") > 1 for r in roles) > 200
    assert sum(r[0] == "system" for r in roles) > 200
    assert sum("tool" in r for r in roles) > 20
    assert any("name" in m for row in written for m in row["messages"])
    assert {row["language"] for row in written} == {"en", "fr", "de", "es"}
    assert len({row["licence"] for row in written}) == len(build.SOURCES)
    assert len({row["source"] for row in written}) == len(build.SOURCES)
    assert any("note" in row for row in written)
    assert any("quality" in row for row in written)
    assert any("tools" in row for row in written)


def test_a_scene_occurs_in_many_families(written: list[dict[str, Any]]) -> None:
    families: dict[str, set[str]] = {}
    for row in written:
        if row["group"] == "general":
            continue
        families.setdefault(row["group"], set()).add(row["family"])
    assert len(families) >= 14
    assert min(len(seen) for seen in families.values()) >= 20


def test_the_pool_is_read_without_a_drop() -> None:
    n = 0
    for batch in read_pool(PoolSource(path=str(build.POOL), columns={"id": "id"})):
        assert batch.drops.num_rows == 0
        n += batch.rows.num_rows
    assert n == len(ROWS)


def test_the_exemplars_are_read_as_a_targets_file() -> None:
    table = read_exemplars(PoolSource(path=str(build.EXEMPLARS)), None, "unused")
    counts = Counter(table.column("target").to_pylist())
    assert counts == {target: len(pairs) for target, pairs in TARGETS.items()}


def test_exemplars_are_few_and_name_families() -> None:
    assert len(TARGETS) >= 4
    assert set(TARGETS) <= set(COUNTS)
    assert all(6 <= len(pairs) <= 10 for pairs in TARGETS.values())


def test_no_exemplar_is_in_the_pool_not_even_its_question() -> None:
    questions = {text_of(row.draft, "user") for row in ROWS}
    answers = {answer(row.draft) for row in ROWS if len(answer(row.draft)) > 20}
    for pairs in TARGETS.values():
        for question, reply in pairs:
            assert question not in questions
            assert reply not in answers


def test_calibration_texts_are_many_and_in_many_scripts() -> None:
    rows = [json.loads(line) for line in build.CALIBRATION.read_text("utf-8").splitlines()]
    assert 128 <= len(rows) <= 200
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)
    assert len({canonical_json(row) for row in rows}) == len(rows)
    text = "".join(str(m["content"]) for row in rows for m in row["messages"])
    for script in ("\u0435", "\u4e00", "\u306f", "\u0643", "¿", "def ", "SELECT"):
        assert script in text


def test_word_matching_does_not_solve_the_pool() -> None:
    shares = measure.measure()
    assert sum(share < measure.BAR for share in shares["held_out"].values()) >= 3
    assert sum(share < measure.BAR for share in shares["exemplars"].values()) >= 3


# The answers


EQUATION = re.compile(r"\d[\d +*/()-]*[+*/-][\d +*/()-]*= \d+")


def equations(text: str) -> list[tuple[str, int]]:
    found = (part.split("=") for part in EQUATION.findall(text))
    return [(left, int(right)) for left, right in found]


@pytest.mark.parametrize("family", ["word_problems", "exercise_writing", "spanish"])
def test_every_equation_holds(family: str) -> None:
    for draft in drafts(family):
        for left, right in equations(text_of(draft, "assistant")):
            assert eval(left) == right, answer(draft)


def test_word_problems_end_in_the_result_of_their_last_equation() -> None:
    checked = 0
    for draft in drafts("word_problems"):
        if "result" not in draft.facts:
            continue
        replies = [str(m["content"]) for m in draft.messages if m["role"] == "assistant"]
        steps = equations(replies[0])
        assert steps[-1][1] == draft.facts["result"]
        assert re.findall(r"\d+", replies[0])[-1] == str(draft.facts["result"])
        assert steps[-1][1] > 0
        checked += 1
    assert checked > 100


def test_given_numbers_occur_in_the_question() -> None:
    """A step may use numbers of the question, earlier results, and the constants 2, 3 and 100."""
    for draft in drafts("word_problems"):
        if "result" not in draft.facts:
            continue
        question = next(str(m["content"]) for m in draft.messages if m["role"] == "user")
        known = set(re.findall(r"\d+", question)) | {"2", "3", "100"}
        reply = next(str(m["content"]) for m in draft.messages if m["role"] == "assistant")
        for left, right in equations(reply):
            numbers = set(re.findall(r"\d+", left))
            if "Every following week" in question:  # Week n comes after n - 1 weeks.
                numbers -= {str(int(n) - 1) for n in known}
            assert numbers <= known, question
            known.add(str(right))


def test_every_query_runs_on_sqlite() -> None:
    for draft in drafts("sql"):
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            for statement in draft.facts["statements"]:  # type: ignore[attr-defined]
                database.execute(statement)
            database.execute(str(draft.facts["query"]))
        flat = re.sub(r"\s+", " ", text_of(draft, "assistant"))
        assert re.sub(r"\s+", " ", str(draft.facts["query"])) in flat


def test_python_code_compiles_and_passes_its_check() -> None:
    for draft in drafts("python_code"):
        space: dict[str, object] = {}
        exec(compile(str(draft.facts["code"]), draft.template, "exec"), space)
        assert eval(str(draft.facts["check"]), space) is True
        assert str(draft.facts["code"]) in text_of(draft, "assistant")


def test_the_code_to_read_compiles_too() -> None:
    for draft in drafts("code_reading"):
        for code in re.findall(r"```python\n(.*?)```", text_of(draft, "user"), re.S):
            compile(code, draft.template, "exec")


def test_code_among_the_exemplars_compiles_and_sql_parses() -> None:
    for _, reply in TARGETS["python_code"]:
        blocks = re.findall(r"```python\n(.*?)```", reply, re.S) or [reply.strip("`")]
        compile(blocks[0], "exemplar", "exec")
    for _, reply in TARGETS["sql"]:
        assert sqlite3.complete_statement(reply.replace("```sql", "").replace("```", ""))


def minutes(clock: str) -> int:
    hours, rest = clock.split(":")
    return int(hours) * 60 + int(rest)


def test_dates_and_durations_are_right() -> None:
    for draft in single("dates_and_times"):
        facts: dict[str, Any] = dict(draft.facts)
        reply = answer(draft)
        if "end" in facts:
            assert facts["start"] + timedelta(days=facts["days"]) == facts["end"]
            right = f"{facts['days']} days" if "between" in draft.template else facts["end"].year
            assert str(right) in reply
        elif "weekday" in facts:
            assert facts["day"].strftime("%A") == facts["weekday"] == reply
        elif "leap" in facts:
            n_days = (date(facts["year"] + 1, 1, 1) - date(facts["year"], 1, 1)).days
            assert reply.startswith("Yes" if n_days == 366 else "No")
        else:
            found = re.search(r"(\d+) h (\d+) min", reply)
            if "duration" in draft.template:
                assert found is not None
                gap = minutes(facts["to"]) - minutes(facts["from"])
                assert int(found[1]) * 60 + int(found[2]) == gap
            else:
                end = (minutes(facts["from"]) + facts["minutes"]) % 1440
                assert f"{end // 60}:{end % 60:02d}" in reply


def roman(text: str) -> int:
    values = [dict(zip("IVXLCDM", (1, 5, 10, 50, 100, 500, 1000), strict=True))[c] for c in text]
    following = [*values[1:], 0]
    return sum(-v if v < after else v for v, after in zip(values, following, strict=True))


# Each unit in the SI unit of its kind, as defined by treaty or statute.
SI = {
    "kilometers": 1000, "miles": 1609.344, "meters": 1, "feet": 0.3048, "inches": 0.0254,
    "centimeters": 0.01, "kilograms": 1, "pounds": 0.45359237, "ounces": 0.028349523125,
    "grams": 0.001, "liters": 1, "US gallons": 3.785411784, "teaspoons": 0.00492892159375,
    "milliliters": 0.001, "hectares": 10_000, "acres": 4046.8564224, "knots": 1852 / 3600,
    "kilometers per hour": 1000 / 3600,
}  # fmt: skip


def test_factors_between_units_follow_from_their_definitions() -> None:
    for unit, other, factor in UNITS:
        assert factor == pytest.approx(SI[unit] / SI[other], rel=1e-5)


def test_conversions_are_right() -> None:
    for draft in single("units"):
        facts: dict[str, Any] = dict(draft.facts)
        if "roman" in facts:
            assert roman(facts["roman"]) == facts["year"]
        elif "fahrenheit" in facts:
            assert facts["fahrenheit"] == pytest.approx(facts["celsius"] * 1.8 + 32)
            reply = answer(draft)
            assert str(facts["fahrenheit"]) in reply or str(facts["celsius"]) in reply
        elif "factor" in facts:
            assert facts["value"] == pytest.approx(facts["x"] * facts["factor"], abs=0.05)
            assert str(facts["value"]) in answer(draft)
        else:
            assert facts["value"] == pytest.approx(facts["n"] * facts["megabytes"] / 1000)


def test_puzzles_have_exactly_one_solution_and_it_is_given() -> None:
    for draft in single("logic_puzzles"):
        facts: dict[str, Any] = dict(draft.facts)
        if "order" in facts:
            fitting = [
                order
                for order in permutations(facts["people"])
                if all(order.index(a) < order.index(b) for a, b in facts["clues"])
            ]
            assert fitting == [tuple(facts["order"])]
            places = [answer(draft).rindex(name) for name in facts["order"]]
            assert places == sorted(places)
        elif "culprit" in facts:
            guilty = [
                person
                for person in facts["people"]
                if [(who == person) is says for _, who, says in facts["claims"]].count(True) == 1
            ]
            assert guilty == [facts["culprit"]]
            assert facts["culprit"] in answer(draft)
        elif "goods" in facts:
            ways = [
                way
                for way in permutations(facts["goods"])
                if not {*zip(facts["people"], way, strict=True)} & {*facts["clues"]}
            ]
            assert ways == [tuple(facts["true"])]


def test_word_games_are_right() -> None:
    for draft in single("word_games"):
        facts: dict[str, Any] = dict(draft.facts)
        reply = answer(draft)
        kind = draft.template.partition("/")[2]
        if kind == "sorted":
            down = any(mark in text_of(draft, "user") for mark in ("z to a", "backwards"))
            assert reply == ", ".join(sorted(facts["words"], reverse=down))
        elif kind == "by_length":
            lengths = [len(word) for word in reply.split(", ")]
            assert lengths == sorted(set(lengths))
            assert set(reply.split(", ")) == set(facts["words"])
        elif kind == "reversed":
            assert reply[::-1] == facts["word"]
        elif kind == "letters":
            assert int(reply) == len(re.findall(facts["letter"], facts["text"]))
        else:
            assert list(reply) == [word[0] for word in facts["words"]]


def test_labels_follow_from_the_remarks() -> None:
    good = {r for remarks in REMARKS.values() for r in remarks["good"]} | set(GENERAL["good"])
    bad = {r for remarks in REMARKS.values() for r in remarks["bad"]} | set(GENERAL["bad"])
    assert not good & bad
    for draft in single("sentiment"):
        if "pair" in draft.template or "label" not in draft.facts:
            continue
        text = text_of(draft, "user")
        moods = {
            mood
            for mood, remarks in (("positive", good), ("negative", bad))
            # The first letter is small after a link such as "But:".
            if any(remark[1:] in text for remark in remarks)
        }
        right = "mixed" if len(moods) == 2 else moods.pop()
        assert draft.facts["label"] == right
        assert right in answer(draft).lower()


def test_extracted_fields_stand_in_the_text() -> None:
    for draft in drafts("extraction"):
        for value in draft.facts.values():
            assert re.search(rf"\b{value}\b", text_of(draft, "user")), draft.template
            assert str(value) in answer(draft)
        numbers = re.findall(r"\d+", text_of(draft, "user"))
        assert numbers == [str(draft.facts["number"])]


def test_corrected_sentences_differ_from_the_broken_ones() -> None:
    for draft in drafts("grammar"):
        assert draft.facts["wrong"] != draft.facts["right"]
        assert str(draft.facts["wrong"]) in text_of(draft, "user")
        assert str(draft.facts["right"]) in text_of(draft, "assistant")


def test_scaled_recipes_are_in_proportion() -> None:
    for draft in single("cooking"):
        facts: dict[str, Any] = dict(draft.facts)
        if "scaled" in facts:
            lines = answer(draft).splitlines()
            for line, (amount, thing) in zip(lines, facts["parts"], strict=True):
                found = re.search(r"(\d+) ([a-z].*)", line)
                assert found is not None
                assert int(found[1]) / facts["people"] == amount / 2
                assert found[2] == thing


def test_tool_calls_name_an_offered_tool_and_carry_its_arguments() -> None:
    for draft in drafts("tool_use"):
        call = draft.messages[1]["tool_calls"][0]  # type: ignore[index]
        tools: list[dict[str, Any]] = draft.tools or []
        offered = {tool["function"]["name"]: tool for tool in tools}
        required = offered[call["function"]["name"]]["function"]["parameters"]["required"]
        assert set(json.loads(call["function"]["arguments"])) == set(required)
        assert draft.messages[2]["tool_call_id"] == call["id"]


def test_no_slot_was_left_unfilled() -> None:
    for row in ROWS:
        if row.family not in {"python_code", "code_reading", "extraction", "tool_use"}:
            assert not re.search(r"[{}]|<\w+>", text_of(row.draft)), row.draft.template


def test_every_event_names_a_person_a_day_and_one_number() -> None:
    for number in range(len(incidents.EVENTS)):
        event = incidents.incident(Random(number), number)
        for value in (event.name, event.day, str(event.n)):
            assert re.search(rf"\b{value}\b", event.story), event.title


def test_the_generator_reads_no_file_outside_the_package() -> None:
    sources = Path(build.__file__).parent.glob("*.py")
    for source in sources:
        text = source.read_text(encoding="utf-8")
        assert "open(" not in text
        assert "read_" not in text.replace("read_rows", "")
