import numpy as np

from selection.core.shingles import ngram_hashes, word_hashes
from selection.picking.decontamination import find_contaminated, item_runs

TEMPLATE = "Read the following question with care and then answer it in one short sentence please"
WORDS = [f"w{i}" for i in range(3000)]


def made_texts(n: int, seed: int, template: str = TEMPLATE) -> list[str]:
    """Texts of one task: all share the wording of the instruction."""
    rng = np.random.default_rng(seed)
    return [f"{template}: {' '.join(rng.choice(WORDS, 30))}" for _ in range(n)]


def found_rows(texts: list[str], items: list[str], **more: float) -> list[int]:
    runs = item_runs(items, [0] * len(items))
    return find_contaminated(texts, runs, len(texts), **more).rows.tolist()  # type: ignore[arg-type]


def test_planted_copies_go_and_tasks_that_share_a_template_stay() -> None:
    pool, items = made_texts(3000, 1), made_texts(20, 2)
    pool[700] = items[3]
    pool[2999] = f"Some words before. {items[7].upper()} And some words after it."
    cut = items[11].split()
    pool[41] = " ".join(cut[: len(cut) * 3 // 4])
    assert found_rows(pool, items) == [41, 700, 2999]


def test_what_a_template_is_does_not_depend_on_the_pool_alone() -> None:
    # Five rows of the task are fewer than any limit of the pool: the items show the template.
    pool = made_texts(5, 1) + [" ".join(np.random.default_rng(9).choice(WORDS, 40))] * 3
    assert found_rows(pool, made_texts(6, 2)) == []


def test_frequent_runs_do_not_count_towards_an_item() -> None:
    item = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    filler = [" ".join(np.random.default_rng(i).choice(WORDS, 20)) for i in range(500)]
    assert found_rows([item] * 10 + filler, [item]) == list(range(10))
    assert found_rows([item] * 11 + filler, [item]) == []


def test_less_than_the_share_is_not_enough() -> None:
    words = [f"u{i}" for i in range(45)]
    item = " ".join(words)
    n_runs = 45 - 13 + 1
    for n_words in range(13, 45):
        share = (n_words - 13 + 1) / n_runs
        assert bool(found_rows([" ".join(words[:n_words])], [item])) == (share >= 0.4)


def test_the_clearest_item_is_named() -> None:
    items = made_texts(4, 5)
    runs = item_runs(items, [0, 0, 1, 1])
    found = find_contaminated([items[2] + " " + items[1][:170]], runs, 1)
    assert found.rows.tolist() == [0]
    assert found.items.tolist() == [2]
    assert found.matched.tolist() == found.counted.tolist()


def test_scripts_without_spaces_are_cut_too() -> None:
    item = "東京の美術館で開かれた展覧会には世界中から多くの人が訪れました。"
    other = "大阪の図書館では毎週土曜日に子供のための読み聞かせ会があります。"
    assert found_rows([other, f"次の文を訳しなさい。{item}"], [item]) == [1]


def test_short_items_have_shorter_runs_and_the_shortest_are_left_out() -> None:
    items = ["a b c d e f g h i", "x y z"]
    runs = item_runs(items, [0, 1])
    assert runs.lengths.tolist() == [8, 8] or set(runs.lengths.tolist()) <= {8, 9}
    assert runs.unsearched.tolist() == [1]
    assert find_contaminated(["q a b c d e f g h i r", "x y z"], runs, 2).rows.tolist() == [0]


def test_hits_are_the_same_however_the_stream_is_cut() -> None:
    pool, items = made_texts(2500, 3), made_texts(30, 4)
    for i in range(30):
        pool[i * 80 + 7] = items[i]
    assert found_rows(pool, items) == [i * 80 + 7 for i in range(30)]


def test_nothing_to_search_finds_nothing() -> None:
    assert found_rows(["some text"], []) == []
    assert found_rows([], ["one two three four five six seven eight nine"]) == []


def test_hashes_tell_runs_apart() -> None:
    words = word_hashes("a b c d a b c")
    runs = ngram_hashes(words, 3)
    assert len(runs) == 5
    assert runs[0] == runs[4]
    assert len(set(runs.tolist())) == 4
    assert not len(ngram_hashes(words, 8))
