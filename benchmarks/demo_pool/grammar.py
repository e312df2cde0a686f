"""Sentences with one planted mistake, and their repair."""

import re
from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.incidents import incident
from benchmarks.demo_pool.rows import Draft, Template, ask, chat, sometimes

Mistake = tuple[str, str]
"""Broken sentence and what was wrong; the sentence is unchanged if the mistake does not fit."""


def _replaced(rng: Random, text: str, pairs: tuple[tuple[str, str], ...], why: str) -> Mistake:
    fitting = [(a, b) for a, b in pairs if re.search(rf"\b{re.escape(a)}\b", text)]
    if not fitting:
        return text, ""
    right, wrong = rng.choice(fitting)
    return re.sub(rf"\b{re.escape(right)}\b", wrong, text, count=1), why.format(a=right, b=wrong)


def _number(rng: Random, text: str) -> Mistake:
    pairs = (("were", "was"), ("has", "have"), ("have", "has"), ("are", "is"), ("was", "were"))
    return _replaced(rng, text, pairs, "the verb must be `{a}` to agree with its subject")


def _missing(rng: Random, text: str) -> Mistake:
    pairs = (("the", ""), ("a", ""), ("an", ""))
    broken, why = _replaced(rng, text, pairs, "the article `{a}` is missing")
    return re.sub(r"  +", " ", broken).strip(), why


def _doubled(rng: Random, text: str) -> Mistake:
    words = text.split()
    place = rng.randrange(1, len(words) - 1)
    word = words[place].strip(".,")
    broken = " ".join([*words[:place], word, *words[place:]])
    return broken, f"`{word}` stands there twice"


def _article(rng: Random, text: str) -> Mistake:
    pairs = (("an old", "a old"), ("an hour", "a hour"), ("a new", "an new"), ("a large",
    "an large"),
             ("an atlas", "a atlas"), ("a signal", "an signal"), ("a week", "an week"),
             ("a cat", "an cat"), ("a tree", "an tree"), ("a shoe", "an shoe"))  # fmt: skip
    return _replaced(rng, text, pairs, "it must be `{a}`")


def _tense(rng: Random, text: str) -> Mistake:
    pairs = (("brought", "bringed"), ("found", "finded"), ("took", "taked"), ("came", "comed"),
             ("went", "goed"), ("blew", "blowed"), ("read", "readed"), ("drew", "drawed"),
             ("sat", "sitted"), ("rang", "ringed"), ("held", "holded"), ("stood", "standed"),
             ("left", "leaved"), ("left", "leaved"), ("got", "getted"), ("gave", "gived"),
             ("lost", "losed"), ("felt", "feeled"), ("knew", "knowed"), ("cut", "cutted"),
             ("grew", "growed"), ("fell", "falled"), ("rode", "rided"))  # fmt: skip
    return _replaced(rng, text, pairs, "the past form is `{a}`, not `{b}`")


def _homophone(rng: Random, text: str) -> Mistake:
    pairs = (("their", "there"), ("there", "their"), ("its", "it's"), ("too", "to"),
             ("where", "were"), ("piece", "peace"), ("four", "for"), ("through", "threw"),
             ("whole", "hole"), ("one", "won"), ("would", "wood"), ("by", "buy"),
             ("two", "too"), ("no", "know"), ("knew", "new"), ("hour", "our"))  # fmt: skip
    return _replaced(rng, text, pairs, "`{b}` only sounds like `{a}`")


def _capitals(rng: Random, text: str) -> Mistake:
    broken = text[0].lower() + text[1:].rstrip(".")
    return broken, "a sentence starts with a capital letter and ends with a period"


def _swapped(rng: Random, text: str) -> Mistake:
    words = text.rstrip(".").split()
    place = rng.randrange(1, len(words) - 2)
    words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words) + ".", f"`{words[place + 1]}` and `{words[place]}` were swapped"


def _spelling(rng: Random, text: str) -> Mistake:
    longer = [w for w in re.findall(r"[a-z]{6,}", text)]
    if not longer:
        return text, ""
    word = rng.choice(longer)
    at = rng.randrange(1, len(word) - 2)
    wrong = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return text.replace(word, wrong, 1), f"`{wrong}` should be spelled `{word}`"


MISTAKES: tuple[Callable[[Random, str], Mistake], ...] = (
    _number, _missing, _doubled, _article, _tense, _homophone, _capitals, _swapped, _spelling,
)  # fmt: skip
ASKS = (
    "Correct this.", "Is there a mistake?", "Proofread, please:", "Fix the grammar.",
    "What is wrong here?", "Make this proper English.", "My pupil wrote this. Repair it.",
    "One error is hidden in it.", "Before it goes to print, have a look:", "Correct English?",
    "Clean up this line.", "Would you let this pass?",
)  # fmt: skip
SYSTEMS = ("You are a strict proofreader.", "Return the corrected sentence only.",
           "You teach English to newcomers.")  # fmt: skip


def _template(make: Callable[[Random, str], Mistake]) -> Template:
    name = "grammar/" + make.__name__.strip("_")

    def template(rng: Random) -> Draft:
        while True:
            event = incident(rng)
            right = rng.choice(event.sentences)
            wrong, why = make(rng, right)
            if wrong != right:
                break
        prompt = rng.choice(["{q} {t}", "{q}\n{t}", "{t}\n\n{q}", '{q}\n"{t}"']).format(
            q=rng.choice(ASKS), t=wrong
        )
        facts = {"right": right, "wrong": wrong}
        if rng.random() < 0.12:
            reply = f"{why[0].upper()}{why[1:]}." if why[0] != "`" else f"{why}."
            return chat(name, [prompt, right, "Why?", reply], group=event.group, facts=facts)
        answer = rng.choice([right, right, f"{right}\n({why})", f"Corrected: {right}"])
        system = sometimes(rng, 0.2, SYSTEMS[1] if answer == right else SYSTEMS[0])
        return ask(name, prompt, answer, system=system, group=event.group, facts=facts)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    "grammar": tuple(_template(make) for make in MISTAKES)
}
