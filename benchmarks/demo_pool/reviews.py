"""Opinions about the places of the world; the label follows from the remarks they are made of."""

from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.incidents import FILLERS, incident
from benchmarks.demo_pool.review_words import GENERAL, REMARKS
from benchmarks.demo_pool.rows import Draft, Template, ask, capital, chat, sometimes
from benchmarks.demo_pool.world import BY_KEY, DAYS, Scene, names, scene

LABELS = {"good": ("positive", "negative"), "bad": ("negative", "positive")}
ASKS = (
    "Positive or negative?",
    "Does the writer like it or not?",
    "What is the mood of this comment?",
    "Thumbs up or thumbs down?",
    "Label the feeling: positive, negative or mixed.",
    "How does this person feel about the place?",
    "Sentiment, one word.",
    "Is this guest happy?",
    "Rate the tone of what follows.",
    "Would this person come again, judging by the words?",
)
SYSTEMS = (
    "You label customer feedback. One word.",
    "You read comments for a small business and say how people feel.",
    "Classify tone. Be brief.",
)
LEADS = (
    "We went there on {day}.",
    "Second visit for us.",
    "My friend {name} had told me about it.",
    "I stopped by on the way to work.",
    "We came as a family of four.",
    "It was raining, so we went in.",
    "{name} and I were there last week.",
    "I had read about it in the paper.",
)


def comment(rng: Random, place: Scene, mood: str, n_remarks: int = 2) -> str:
    """A comment whose every opinion is `mood` (good or bad), between neutral sentences."""
    remarks = rng.sample(REMARKS[place.key][mood], min(n_remarks, 3))
    remarks.append(rng.choice(GENERAL[mood]))
    rng.shuffle(remarks)
    lead = rng.choice(LEADS).format(day=rng.choice(DAYS), name=names(rng, 1)[0])
    neutral = [lead] if rng.random() < 0.7 else []
    return " ".join(neutral + remarks)


def mixed_comment(rng: Random, place: Scene) -> str:
    """A comment with as much praise as blame."""
    good, bad = (rng.choice(REMARKS[place.key][mood]) for mood in ("good", "bad"))
    first, second = rng.sample([good, bad], 2)
    link = rng.choice(["On the other hand: ", "But: ", "Still, to be fair: ", "Then again: "])
    return f"{first} {link}{second[0].lower() + second[1:]}"


Case = tuple[str, str, str]
"""Text, label, group."""


def _plain(rng: Random) -> Case:
    place, mood = scene(rng), rng.choice(["good", "bad"])
    return comment(rng, place, mood), LABELS[mood][0], place.key


def _long(rng: Random) -> Case:
    place, mood = scene(rng), rng.choice(["good", "bad"])
    text = comment(rng, place, mood, 3)
    return f"{rng.choice(FILLERS)} {text} {rng.choice(FILLERS)}", LABELS[mood][0], place.key


def _mixed(rng: Random) -> Case:
    place = scene(rng)
    return mixed_comment(rng, place), "mixed", place.key


def _event(rng: Random) -> Case:
    event, mood = incident(rng), rng.choice(["good", "bad"])
    remark, general = rng.choice(REMARKS[event.group][mood]), rng.choice(GENERAL[mood])
    start = rng.choice([f"{event.lead} {event.details[0]}", f"{event.details[1]} {event.lead}"])
    return f"{start} {remark} {general}", LABELS[mood][0], event.group


def _short(rng: Random) -> Case:
    place, mood = scene(rng), rng.choice(["good", "bad"])
    return rng.choice(REMARKS[place.key][mood]), LABELS[mood][0], place.key


CASES: tuple[Callable[[Random], Case], ...] = (_plain, _long, _mixed, _event, _short)


def _framed(rng: Random, text: str) -> str:
    quoted = rng.choice(['"{}"', "{}", "> {}", "Text: {}", "Comment: {}"]).format(text)
    parts = [rng.choice(ASKS), quoted]
    if rng.random() < 0.5:
        parts.reverse()
    return rng.choice(["\n", "\n\n"]).join(parts)


def _word(rng: Random, case: Case) -> Draft:
    text, label, group = case
    answer = rng.choice([label, capital(label), capital(label) + ".", f"Label: {label}"])
    system = sometimes(rng, 0.3, rng.choice(SYSTEMS))
    return ask("", _framed(rng, text), answer, system=system, group=group, facts={"label": label})


def _sentence(rng: Random, case: Case) -> Draft:
    text, label, group = case
    answer = rng.choice([
        f"The tone is {label}.", f"This reads as {label} to me.", f"Clearly {label}.",
        f"I would file it under {label}.", f"{capital(label)}: the wording leaves no doubt.",
    ])  # fmt: skip
    return ask("", _framed(rng, text), answer, group=group, facts={"label": label})


def _pair(rng: Random, case: Case) -> Draft:
    text, label, group = case
    mood = rng.choice(["good", "bad"])
    other = comment(rng, BY_KEY[group], mood, 1)
    prompt = rng.choice([
        f"Two voices about the same place.\nA: {text}\nB: {other}\nHow does each of them feel?",
        f"A) {text}\nB) {other}\n\nGive the polarity of A and of B.",
    ])  # fmt: skip
    answer = f"A: {label}\nB: {LABELS[mood][0]}"
    return ask("", prompt, answer, group=group, facts={"label": label})


def _follow_up(rng: Random, case: Case) -> Draft:
    text, label, group = case
    mood = rng.choice(["good", "bad"])
    other = comment(rng, BY_KEY[group], mood, 1)
    second = LABELS[mood][0]
    turns = [_framed(rng, text), capital(label), f"And this one? {other}", capital(second)]
    return chat("", turns, group=group, facts={"label": label})


FORMS: tuple[Callable[[Random, Case], Draft], ...] = (_word, _sentence, _pair, _follow_up)


def _template(make: Callable[[Random], Case], form: Callable[[Random, Case], Draft]) -> Template:
    name = f"sentiment/{make.__name__.strip('_')}-{form.__name__.strip('_')}"

    def template(rng: Random) -> Draft:
        draft = form(rng, make(rng))
        return Draft(name, draft.messages, group=draft.group, facts=draft.facts)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    "sentiment": tuple(_template(make, form) for make in CASES for form in FORMS)
}
