"""Logic puzzles that code has solved, and jobs on words and letters."""

from collections.abc import Callable
from itertools import permutations
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, chat, listing, sometimes
from benchmarks.demo_pool.world import NAMES, SCENES, Scene, names, scene

Fact = tuple[str, str, dict[str, object]]


def _order(rng: Random, s: Scene) -> Fact:
    """People in a row, given enough comparisons to leave one order."""
    people = names(rng, rng.choice([3, 4, 4]))
    true = list(people)
    rng.shuffle(true)
    pairs = [(a, b) for i, a in enumerate(true) for b in true[i + 1 :]]
    rng.shuffle(pairs)
    chosen: list[tuple[str, str]] = []
    for pair in pairs:
        chosen.append(pair)
        if len(orders(people, chosen)) == 1:
            break
    verb = rng.choice([("came before", "came first", "last"), ("is older than", "is oldest",
                       "youngest"), ("sits in front of", "sits in the first row", "at the back"),
                       ("is taller than", "is tallest", "shortest")])  # fmt: skip
    clues = " ".join(f"{a} {verb[0]} {b}." for a, b in chosen)
    question = f"{listing(people)} are {s.at}. {clues} Who {verb[1]}, and in which order follow "
    question += "the others?"
    answer = rng.choice([f"{true[0]}. The order is {listing(true)}.", " > ".join(true),
                         f"{listing(true)}, in this order."])  # fmt: skip
    return question, answer, {"order": true, "people": people, "clues": chosen}


def orders(people: list[str], clues: list[tuple[str, str]]) -> list[tuple[str, ...]]:
    """All orders in which the first of every clue comes before the second."""
    return [o for o in permutations(people) if all(o.index(a) < o.index(b) for a, b in clues)]


def _liars(rng: Random, s: Scene) -> Fact:
    """Three people, exactly one tells the truth, somebody did it."""
    while True:
        people = names(rng, 3)
        claims = []
        for speaker in people:
            suspect = rng.choice(people)
            claims.append((speaker, suspect, rng.random() < 0.5))
        culprits = [p for p in people if sum((p == who) == yes for _, who, yes in claims) == 1]
        if len(culprits) == 1:
            break
    deed = rng.choice(["took the last roll", "broke the lamp", "hid the key", "ate the melon"])
    texts = [
        f'{speaker} says: "{("I" if who == speaker else who)} {"" if yes else "never "}{deed}."'
        for speaker, who, yes in claims
    ]
    question = f"Somebody {s.at} {deed}: {listing(people, 'or')}. {' '.join(texts)} Only one of "
    question += "the three tells the truth. Who did it?"
    answer = f"It was {culprits[0]}. In every other case the number of true sentences is not one."
    return question, answer, {"claims": claims, "people": people, "culprit": culprits[0]}


def _houses(rng: Random, s: Scene) -> Fact:
    """Three people and three goods, one each, with negative clues that leave one assignment."""
    people = names(rng, 3)
    goods = [good[0] for good in rng.sample(s.goods, 3)]
    while True:
        true = rng.sample(goods, 3)
        wrong = [(p, g) for p, own in zip(people, true, strict=True) for g in goods if g != own]
        clues = rng.sample(wrong, 3)
        if len(assignments(people, goods, clues)) == 1:
            break
    things = [f"the {g}" for g in goods]
    text = " ".join(f"{p} did not take the {g}." for p, g in clues)
    question = f"{listing(people)} each took one thing {s.at}: {listing(things)}. {text} "
    question += rng.choice(["Who has what?", "Which thing belongs to whom?", "Sort it out."])
    answer = rng.choice(["; ", "\n", ", "]).join(
        f"{p}: {g}" for p, g in zip(people, true, strict=True)
    )
    return question, answer, {"people": people, "goods": goods, "clues": clues, "true": true}


def assignments(people: list[str], goods: list[str], clues: list[tuple[str, str]]) -> list[object]:
    """All ways to give each person one good without breaking a clue."""
    ways = (dict(zip(people, way, strict=True)) for way in permutations(goods))
    return [way for way in ways if all(way[p] != g for p, g in clues)]


def _truth(rng: Random, s: Scene) -> Fact:
    """A syllogism over made-up kinds."""
    a, b, c = rng.sample(["torvins", "melps", "quandles", "brims", "yarrops", "sniffs", "dulins",
                          "fenters", "gloops", "wimmers"], 3)  # fmt: skip
    kind = rng.randrange(4)
    texts = (
        (f"All {a} are {b}. All {b} are {c}. Are all {a} {c}?", f"Yes, all {a} are {c}."),
        (f"All {a} are {b}. Some {b} are {c}. Are some {a} certainly {c}?",
         f"No. The {b} that are {c} need not be {a}."),
        (f"No {a} are {b}. All {c} are {b}. Can one of the {c} be among the {a}?",
         f"No: it would be among the {b}, and no {a} are."),
        (f"All {a} are {b}. This one here is not among the {b}. Is it one of the {a}?",
         f"No, for then it would be among the {b}."),
    )  # fmt: skip
    question, answer = texts[kind]
    lead = rng.choice(["", f"Overheard {s.at}: ", "Suppose this. ", "A riddle. "])
    return lead + question, answer, {}


def _sorted(rng: Random, s: Scene) -> Fact:
    words = _words(rng, rng.randint(4, 8))
    down = rng.random() < 0.3
    question = rng.choice([
        f"Put in alphabetical order{', from z to a' if down else ''}: {', '.join(words)}",
        f"Alphabetize{' backwards' if down else ''}: {' '.join(words)}",
        f"The labels {s.at} are mixed up: {', '.join(words)}. "
        f"Sort them {'from z to a' if down else 'from a to z'}.",
    ])  # fmt: skip
    result = sorted(words, reverse=down)
    return question, ", ".join(result), {"words": words, "result": result}


def _by_length(rng: Random, s: Scene) -> Fact:
    words = list({len(w): w for w in _words(rng, 9)}.values())
    rng.shuffle(words)
    result = sorted(words, key=len)
    question = rng.choice(["Shortest word first: ", "Order by number of letters: "])
    return question + ", ".join(words), ", ".join(result), {"words": words, "result": result}


def _reversed(rng: Random, s: Scene) -> Fact:
    word = rng.choice(_words(rng, 3))
    question = rng.choice(["Spell backwards: {}", "Write '{}' from the end to the front.",
                           "What is {} in a mirror, letter by letter?"])  # fmt: skip
    return question.format(word), word[::-1], {"word": word, "result": word[::-1]}


def _letters(rng: Random, s: Scene) -> Fact:
    text = " ".join(_words(rng, 3))
    letter = rng.choice(sorted(set(text) - {" "}))
    n = text.count(letter)
    question = rng.choice([f"How many times does the letter {letter} occur in: {text}?",
                           f"Count the {letter}'s in '{text}'."])  # fmt: skip
    return question, str(n), {"text": text, "letter": letter, "n": n}


def _initials(rng: Random, s: Scene) -> Fact:
    words = _words(rng, rng.randint(4, 6))
    result = "".join(word[0] for word in words)
    question = rng.choice([f"Take the first letter of each: {', '.join(words)}",
                           f"Initials of these words, joined: {' '.join(words)}"])  # fmt: skip
    return question, result, {"words": words, "result": result}


def _words(rng: Random, n: int) -> list[str]:
    """Different single words of the world."""
    goods = {part for place in SCENES for good in place.goods for part in good[:2]}
    people = {name.lower() for name in NAMES} | {place.worker for place in SCENES}
    return rng.sample(sorted(word for word in goods | people if " " not in word), n)


MAKERS: dict[str, tuple[Callable[[Random, Scene], Fact], ...]] = {
    "logic_puzzles": (_order, _liars, _houses, _truth),
    "word_games": (_sorted, _by_length, _reversed, _letters, _initials),
}
SYSTEMS = ("Think first.", "You like riddles.", "Answer as briefly as possible.")


def _template(family: str, make: Callable[[Random, Scene], Fact]) -> Template:
    name = f"{family}/{make.__name__.strip('_')}"

    def template(rng: Random) -> Draft:
        place = scene(rng)
        question, answer, facts = make(rng, place)
        if rng.random() < 0.08:
            more, reply, _ = make(rng, scene(rng))
            return chat(name, [question, answer, more, reply], group=place.key, facts=facts)
        system = sometimes(rng, 0.15, rng.choice(SYSTEMS))
        return ask(name, question, answer, system=system, group=place.key, facts=facts)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    family: tuple(_template(family, make) for make in makers) for family, makers in MAKERS.items()
}
