"""Decontamination: questions and answers, whole and in part, rare and frequent."""

import numpy as np
import pytest

from selection.core.shingles import ngram_hashes, word_hashes
from selection.picking.decontamination import Contaminated, find_contaminated
from selection.picking.item_runs import Item, as_item, item_runs

TEMPLATE = "Read the following question with care and then answer it in one short sentence please"
WORDS = [f"w{i}" for i in range(3000)]


def made_texts(n: int, seed: int, template: str = TEMPLATE) -> list[str]:
    """Texts of one task: all share the wording of the instruction."""
    rng = np.random.default_rng(seed)
    return [f"{template}: {' '.join(rng.choice(WORDS, 30))}" for _ in range(n)]


def search(texts: list[str], items: list[str] | list[Item], **more: float) -> Contaminated:
    pairs = [(item, "") if isinstance(item, str) else item for item in items]
    runs = item_runs(pairs, [0] * len(pairs))
    return find_contaminated(texts, runs, len(texts), **more)  # type: ignore[arg-type]


def contaminated_rows(texts: list[str], items: list[str] | list[Item], **more: float) -> list[int]:
    return search(texts, items, **more).rows.tolist()


def test_planted_copies_go_and_tasks_that_share_a_template_stay() -> None:
    pool, items = made_texts(3000, 1), made_texts(20, 2)
    pool[700] = items[3]
    pool[2999] = f"Some words before. {items[7].upper()} And some words after it."
    cut = items[11].split()
    pool[41] = " ".join(cut[: len(cut) * 3 // 4])
    assert contaminated_rows(pool, items) == [41, 700, 2999]


def test_what_a_template_is_does_not_depend_on_the_pool_alone() -> None:
    # Five rows of the task are fewer than any limit of the pool: the items show the template.
    pool = made_texts(5, 1) + [" ".join(np.random.default_rng(9).choice(WORDS, 40))] * 3
    assert contaminated_rows(pool, made_texts(6, 2)) == []


def other_texts(n: int) -> list[str]:
    return [" ".join(np.random.default_rng(1000 + i).choice(WORDS, 20)) for i in range(n)]


@pytest.mark.parametrize("n", [1, 10, 11, 300])
def test_however_many_hold_the_whole_question_all_of_them_go(n: int) -> None:
    question = " ".join(WORDS[:40])
    copies = [f"{question} The answer is {i}, since w{i + 50} says so." for i in range(n)]
    item = [(question, "Nobody knows.")]
    assert contaminated_rows(copies + other_texts(60), item) == list(range(n))


def test_frequent_runs_do_not_count_towards_a_part_of_an_item() -> None:
    """An instruction that only the pool shows to be one: rows of the task hold most of the item."""
    instruction = " ".join(WORDS[:60])
    pool = [f"{instruction} {text}" for text in other_texts(40)]
    assert contaminated_rows(pool + other_texts(60), [f"{instruction} {TEMPLATE}"]) == []
    pool[7] = f"{instruction} {TEMPLATE}"
    assert contaminated_rows(pool + other_texts(60), [f"{instruction} {TEMPLATE}"]) == [7]


def made_items(n: int, seed: int, n_words: int) -> list[Item]:
    """Questions under one instruction, with answers that share their last words."""
    rng = np.random.default_rng(seed)
    return [
        (
            f"{TEMPLATE}: {' '.join(rng.choice(WORDS, n_words))}",
            f"{' '.join(rng.choice(WORDS, 12))}, so the answer is the following one",
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("n_words", [6, 9, 40])
def test_a_question_is_seen_with_another_answer_bare_or_under_another_instruction(
    n_words: int,
) -> None:
    items, pool = made_items(8, 3, n_words), other_texts(400)
    for i, (question, answer) in enumerate(items):
        bare = question.removeprefix(f"{TEMPLATE}: ")
        pool[10 * i] = f"{question}\nquite another answer"
        pool[10 * i + 1] = f"{bare}\nw5 w6"
        pool[10 * i + 2] = f"Think, then speak.\n{bare} Say it in French!\nnon"
        pool[10 * i + 3] = f"a question of its own\n{answer}"
        pool[10 * i + 4] = f"{TEMPLATE}: w1 w2 w3 w4, so the answer is the following one"
    expected = [10 * i + k for i in range(8) for k in range(4)]
    result = search(pool, items)
    assert result.rows.tolist() == expected
    assert result.items.tolist() == [row // 10 for row in expected]
    assert (result.matched == result.counted).all()


def test_a_short_question_that_many_hold_is_named_as_not_searched() -> None:
    items = [("who wrote w1 and w2", ""), (" ".join(WORDS[100:120]), "")]
    rare = search([f"{items[0][0]}? w{i}" for i in range(10)] + other_texts(50), items)
    assert (rare.rows.tolist(), rare.too_frequent.tolist()) == (list(range(10)), [])
    often = search([f"{items[0][0]}? w{i}" for i in range(11)] + other_texts(50), items)
    assert (often.rows.tolist(), often.too_frequent.tolist()) == ([], [0])


def test_a_question_that_several_items_ask_is_their_template() -> None:
    items = [(TEMPLATE, " ".join(WORDS[i : i + 20])) for i in range(0, 60, 20)]
    pool = [f"{TEMPLATE} {text}" for text in other_texts(30)]
    pool[4] += items[1][1]
    assert contaminated_rows(pool, items) == [4]
    of_template = [(TEMPLATE, ""), (TEMPLATE, "so it is")]
    assert item_runs(of_template, [0, 0]).unsearched.tolist() == [0]
    same = [(TEMPLATE, ""), (TEMPLATE, "")]  # one item twice
    assert item_runs(same, [0, 0]).unsearched.tolist() == []


def test_a_question_with_too_few_words_of_its_own_is_searched_with_its_instruction() -> None:
    items = [(f"{TEMPLATE}: w{i}", "") for i in range(3)]
    pool = [f"{TEMPLATE}: w{i}\nfine" for i in range(1, 9)]
    assert contaminated_rows(pool, items) == [0, 1]
    assert item_runs([("w1", ""), ("w2 w3", "")], [0, 0]).unsearched.tolist() == [0, 1]


def test_hits_of_many_batches_are_those_of_a_slow_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every item as runs of words in plain Python; frequent hits are thrown away on the way."""
    monkeypatch.setattr("selection.picking.decontamination._COMPACT", 50)
    rng = np.random.default_rng(6)
    few = [f"v{i}" for i in range(6)]
    items = [(" ".join(rng.choice(few, 14)), " ".join(rng.choice(few, 10))) for _ in range(5)]
    pool = [" ".join(rng.choice(few, 12)) for _ in range(2500)]
    for row in rng.choice(2500, 60, replace=False):
        pool[row] += " | " + items[row % 5][row % 2]
    result = search(pool, items, pool_share=0.01)
    runs = item_runs(items, [0] * 5)
    in_pool = [
        {int(h) for n in set(runs.lengths.tolist()) for h in ngram_hashes(word_hashes(text), n)}
        for text in pool
    ]
    parts = [
        {int(runs.runs[p]) for p in runs.run_of[runs.parts == part]} for part in range(runs.n_parts)
    ]
    often = {h for h in set().union(*parts) if sum(h in text for text in in_pool) > 25}
    expected = []
    for row, text in enumerate(in_pool):
        for own, is_long in zip(parts, runs.is_long, strict=True):
            rare = own - often
            if (own <= text and is_long) or (text & rare and len(text & rare) >= 0.4 * len(rare)):
                expected.append(row)
                break
    assert result.rows.tolist() == expected
    assert len(expected) >= 60


def test_question_and_answer_of_a_conversation() -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ]
    assert as_item(turns) == ("Be kind.\nOne?\nTwo.\nThree?", "")
    assert as_item(turns[:3]) == ("Be kind.\nOne?", "Two.")
    assert as_item([]) == ("", "")


def test_less_than_the_share_is_not_enough() -> None:
    words = [f"u{i}" for i in range(45)]
    item = " ".join(words)
    n_runs = 45 - 13 + 1  # A third of 45 words is more than the longest run, of 13.
    for n_words in range(13, 46):
        share = (n_words - 13 + 1) / n_runs
        assert bool(contaminated_rows([" ".join(words[:n_words])], [item])) == (share >= 0.4)


def test_the_clearest_item_is_named() -> None:
    items = made_texts(4, 5)
    runs = item_runs([(item, "") for item in items], [0, 0, 1, 1])
    found = find_contaminated([items[2] + " " + items[1][:170]], runs, 1)
    assert found.rows.tolist() == [0]
    assert found.items.tolist() == [2]
    assert found.matched.tolist() == found.counted.tolist()


def test_scripts_without_spaces_are_cut_too() -> None:
    item = "東京の美術館で開かれた展覧会には世界中から多くの人が訪れました。"
    other = "大阪の図書館では毎週土曜日に子供のための読み聞かせ会があります。"
    assert contaminated_rows([other, f"次の文を訳しなさい。{item}"], [item]) == [1]


def test_short_items_have_shorter_runs_and_the_shortest_are_left_out() -> None:
    items = [("a b c d e f g h i", ""), ("x y z", "")]
    runs = item_runs(items, [0, 1])
    assert runs.lengths.tolist() == [8, 8] or set(runs.lengths.tolist()) <= {8, 9}
    assert runs.unsearched.tolist() == [1]
    assert find_contaminated(["q a b c d e f g h i r", "x y z"], runs, 2).rows.tolist() == [0]


def test_hits_are_the_same_however_the_stream_is_cut() -> None:
    pool, items = made_texts(2500, 3), made_texts(30, 4)
    for i in range(30):
        pool[i * 80 + 7] = items[i]
    assert contaminated_rows(pool, items) == [i * 80 + 7 for i in range(30)]


def test_nothing_to_search_finds_nothing() -> None:
    assert contaminated_rows(["some text"], []) == []
    assert contaminated_rows([], ["one two three four five six seven eight nine"]) == []


def test_hashes_tell_runs_apart() -> None:
    words = word_hashes("a b c d a b c")
    runs = ngram_hashes(words, 3)
    assert len(runs) == 5
    assert runs[0] == runs[4]
    assert len(set(runs.tolist())) == 4
    assert not len(ngram_hashes(words, 8))
