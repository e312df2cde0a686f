"""Tasks on a short report: sum it up, answer questions, extract fields, judge claims.

All of them quote the same events, so that the report itself says nothing about the task.
"""

import json
from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.incidents import EVENTS, Incident, incident, padded
from benchmarks.demo_pool.rows import Draft, Template, ask, bullets, chat, sometimes

SUMMARY_ASKS = (
    "Sum this up in one sentence.", "What is the gist?", "Too long for me. Short version?",
    "Give me the main point.", "Shorten this for the front page.", "TL;DR please",
    "I have ten seconds. What happened?", "Boil this down.", "One line for the newsletter:",
    "Say the same in at most thirty words.", "Retell it briefly.", "Condense:",
)  # fmt: skip
TITLE_ASKS = (
    "Find a headline for this.", "What title would you print above it?", "Name this story.",
    "Headline, at most six words:", "How would you call this article?",
)  # fmt: skip
EXTRACT_ASKS = {
    "json": (
        "Return JSON with the keys person, day and number (the one in digits).",
        "Who, when, how many? As JSON (person, day, number).",
        "Make a JSON record of this: person, day, number in digits.",
    ),
    "lines": (
        "Fill in the form: person, day, number.",
        "Extract person, weekday and the number given in digits.",
        "Pull out the facts (person, day, number), one per line.",
    ),
    "table": (
        "Put person, day and number into a table.",
        "A table with one row, please: person, day, number.",
    ),
}
SYSTEMS = (
    "You are the editor of a small newspaper.", "Be brief.", "You assist in the archive.",
    "Use only what the text says.",
)  # fmt: skip
FRAMES = ("{q}\n\n{t}", "{t}\n\n{q}", '{q}\n"{t}"', "Text: {t}\n{q}", "{q} {t}", "{t}\n---\n{q}")


def framed(rng: Random, question: str, text: str) -> str:
    """Question and text in one of several orders."""
    return rng.choice(FRAMES).format(q=question, t=text)


def _summary(rng: Random, event: Incident) -> Draft:
    prompt = framed(rng, rng.choice(SUMMARY_ASKS), padded(rng, event, rng.randint(1, 3)))
    draft = ask("", prompt, event.gist, system=sometimes(rng, 0.15, rng.choice(SYSTEMS)))
    if rng.random() < 0.12:
        last = rng.choice(["And as a title?", "Even shorter?", "Just a headline now."])
        return chat("", [prompt, event.gist, last, event.title])
    return draft


def _digest(rng: Random) -> Draft:
    """Several reports at once: the longest samples of the pool."""
    numbers = rng.sample(range(len(EVENTS)), rng.randint(4, 7))
    events = [incident(rng, number) for number in numbers]
    question = rng.choice([
        "One line for each of these reports.", "The week in brief, please.",
        "Make a digest, one sentence per story.", "What do I have to know of all this?",
    ])  # fmt: skip
    prompt = framed(rng, question, "\n\n".join(padded(rng, event) for event in events))
    answer = bullets(rng, [event.gist for event in events])
    return ask("summaries/digest", prompt, answer, system=sometimes(rng, 0.15, SYSTEMS[0]))


def _headline(rng: Random, event: Incident) -> Draft:
    prompt = framed(rng, rng.choice(TITLE_ASKS), padded(rng, event, rng.randint(0, 2)))
    answer = rng.choice([event.title, f"**{event.title}**", f'"{event.title}"'])
    return ask("", prompt, answer, system=sometimes(rng, 0.15, rng.choice(SYSTEMS)))


def _extract(rng: Random, event: Incident) -> Draft:
    style = rng.choice(["json", "json", "lines", "table"])
    prompt = framed(rng, rng.choice(EXTRACT_ASKS[style]), padded(rng, event, rng.randint(0, 2)))
    facts = {"person": event.name, "day": event.day, "number": event.n}
    if style == "json":
        answer = json.dumps(facts)
        if rng.random() < 0.5:
            answer = "```json\n" + json.dumps(facts, indent=2) + "\n```"
    elif style == "lines":
        answer = "\n".join(f"{key}: {value}" for key, value in facts.items())
    else:
        cells = " | ".join(str(value) for value in facts.values())
        answer = f"| person | day | number |\n|---|---|---|\n| {cells} |"
    return ask("", prompt, answer, facts=facts)


def _reading(rng: Random, event: Incident) -> Draft:
    questions = {
        "Who is named in the text?": (event.name, f"{event.name}."),
        "On which day did it happen?": (f"On {event.day}.", f"It says {event.day}."),
        "Which number is mentioned?": (str(event.n), f"The text mentions {event.n}."),
        "What was the reason?": (f"Because {event.reason}.", f"The reason: {event.reason}."),
        "How did it end?": (event.outcome, f"It ended like this: {event.outcome}"),
        "How did it begin?": (event.lead, f'The first sentence says: "{event.lead}"'),
    }
    first, second = rng.sample(sorted(questions), 2)
    prompt = framed(rng, first, padded(rng, event, 1))
    answer = rng.choice(questions[first])
    if rng.random() < 0.3:
        return chat("", [prompt, answer, second, rng.choice(questions[second])])
    return ask("", prompt, answer, system=sometimes(rng, 0.15, rng.choice(SYSTEMS)))


CLAIM_ASKS = (
    'Does the text support this: "{c}"', "True or false? {c}", "Claim: {c} Is it right?",
    'Can one conclude from it that "{c}"?', "Someone told me: {c} Is that so?",
    "Check the statement against the report. {c}",
)  # fmt: skip
UNKNOWN = (
    "{name} has two sisters.", "It had cost a fortune.", "The mayor was on holiday.",
    "There had been a quarrel the day before.", "The same had happened ten years ago.",
    "A film will be made about it.", "{name} was born in the south.",
)  # fmt: skip


def _claim(rng: Random, event: Incident) -> Draft:
    kind = rng.choice(["yes", "no", "unknown"])
    claim = {
        "yes": event.gist,
        "no": event.wrong,
        "unknown": rng.choice(UNKNOWN).format(name=event.name),
    }[kind]
    answer = {
        "yes": rng.choice(["True.", "Yes, it does.", "Supported.", "Yes. " + event.outcome]),
        "no": rng.choice([
            "False.", "No.", f"No. {event.gist}", "Contradicted by the text.",
        ]),
        "unknown": rng.choice([
            "The text does not say.", "Cannot be decided from it.", "Not mentioned.", "Unknown.",
        ]),
    }[kind]  # fmt: skip
    prompt = framed(rng, rng.choice(CLAIM_ASKS).format(c=claim), event.story)
    return ask("", prompt, answer, facts={"kind": kind})


FORMS: dict[str, Callable[[Random, Incident], Draft]] = {
    "summaries": _summary,
    "headlines": _headline,
    "extraction": _extract,
    "reading": _reading,
    "claim_check": _claim,
}


def _template(family: str, number: int) -> Template:
    name = f"{family}/event-{number}"

    def template(rng: Random) -> Draft:
        event = incident(rng, number)
        draft = FORMS[family](rng, event)
        return Draft(name, draft.messages, group=event.group, facts=draft.facts)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    family: tuple(_template(family, number) for number in range(len(EVENTS))) for family in FORMS
}
# One digest after every nine single events.
_EVENTS = TEMPLATES["summaries"]
TEMPLATES["summaries"] = tuple(
    template
    for first in range(0, len(_EVENTS), 9)
    for template in (*_EVENTS[first : first + 9], _digest)
)
