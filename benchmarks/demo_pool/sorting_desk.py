"""Short notes to be filed: which place, which department, how urgent."""

from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.incidents import incident
from benchmarks.demo_pool.rows import Draft, Template, ask, capital, chat, sometimes
from benchmarks.demo_pool.world import SCENES, Scene, clock, names, scene

Filed = tuple[str, str, str]
"""Prompt, answer, group."""
NOTES: dict[str, tuple[str, ...]] = {
    "billing": ("I was charged twice for {many}.", "The invoice shows {n} dollars too much.",
                "When will the refund for the {one} arrive?", "Can I pay the {many} in two parts?",
                "There is a fee on my bill that nobody explained.", "My card was declined {at}."),
    "delivery": ("The {box} with {many} has not come yet.", "The {one} went to a wrong address.",
                 "Could the driver leave the {many} with a neighbor?",
                 "Tracking has said the same thing for {n} days.",
                 "The parcel was open and one {one} is missing.", "Do you ship {many} abroad?"),
    "repairs": ("The {one} I bought stopped working.", "A part of the {one} fell off.",
                "The door {at} does not close.", "Who mends {many} like mine?",
                "There is water on the floor {at}.", "The {one} makes a strange noise."),
    "bookings": ("I would like a place {at} for {n} people.", "Can we move our visit to {time}?",
                 "Please cancel the {day} reservation.", "Is there still room on {day} at {time}?",
                 "Does the {worker} have time for us on {day}?",
                 "Please confirm the visit of {n} people."),
    "lost and found": ("I left a {one} {at}.", "Has anyone handed in a green scarf?",
                       "A {guest} before me forgot a bag.", "My keys must be somewhere {at}.",
                       "Somebody took my umbrella by mistake.", "I found a wallet {at}."),
}  # fmt: skip
ASKS = (
    "Which department handles this: {labels}?", "File it under one of: {labels}.",
    "Tag ({labels}):", "Route the message. Options: {labels}.", "Choose one label. {labels}",
    "Where does it belong? {labels}", "Sort this into {labels}.",
)  # fmt: skip
SYSTEMS = ("You sort the mail. One label, nothing else.", "You work at the front desk.",
           "Assign each message to a department.")  # fmt: skip


def note(rng: Random, place: Scene, label: str) -> str:
    """A message that belongs to the department."""
    one, many, *_ = rng.choice(place.goods)
    day = rng.choice(["Monday", "Tuesday", "Friday", "Sunday"])
    text = rng.choice(NOTES[label]).format(
        one=one, many=many, n=rng.randint(2, 19), at=place.at, box=place.box[0], day=day,
        time=clock(rng), worker=place.worker, guest=place.guest,
    )  # fmt: skip
    return text.replace(" a a", " an a").replace(" a e", " an e")


def _department(rng: Random) -> Filed:
    place, label = scene(rng), rng.choice(sorted(NOTES))
    others = rng.sample([x for x in sorted(NOTES) if x != label], rng.randint(2, 4))
    labels = sorted([label, *others])
    question = rng.choice(ASKS).format(labels=", ".join(labels))
    text = note(rng, place, label)
    if rng.random() < 0.5:
        hello = rng.choice(["Hello, ", "Good morning. ", f"{names(rng, 1)[0]} writes: "])
        text = hello + text
    parts = [question, text]
    rng.shuffle(parts)
    return "\n".join(parts), rng.choice([label, capital(label)]), place.key


def _place(rng: Random) -> Filed:
    event = incident(rng)
    others = [s.key for s in SCENES if s.key != event.group]
    options = [*rng.sample(others, 3), event.group]
    rng.shuffle(options)
    question = rng.choice([
        "Which of these is it about: {o}?", "Topic? Pick from {o}.", "Choose the section: {o}.",
        "The archive has folders named {o}. Where does this go?", "Category ({o})",
    ]).format(o=", ".join(options))  # fmt: skip
    parts = [question, f"{event.lead} {event.outcome}" if rng.random() < 0.5 else event.story]
    rng.shuffle(parts)
    return "\n\n".join(parts), event.group, event.group


def _several(rng: Random) -> Filed:
    place = scene(rng)
    labels = rng.sample(sorted(NOTES), 3)
    texts = [f"{i}. {note(rng, place, label)}" for i, label in enumerate(labels, 1)]
    question = rng.choice(["Label each message.", "Who has to deal with what?",
                           "Give the department for every line.",
                           "Three notes came in. Distribute them."])  # fmt: skip
    names_of = f"Departments: {', '.join(sorted(NOTES))}."
    answer = "\n".join(f"{i}. {label}" for i, label in enumerate(labels, 1))
    return f"{question} {names_of}\n" + "\n".join(texts), answer, place.key


def _urgent(rng: Random) -> Filed:
    place, hot = scene(rng), rng.random() < 0.5
    many = rng.choice(place.goods)[1]
    text = rng.choice([
        "Smoke is coming from the cellar {at}!", "The {worker} has fallen and cannot stand up.",
        "Water is running down the stairs {at}.", "A child is locked in {at}.",
    ] if hot else [
        "When do you next get {many}?", "Do you sell {many} in other colors as well?",
        "I only wanted to say thanks to the {worker}.", "Is there parking near {place}?",
    ]).format(at=place.at, worker=place.worker, many=many, place=place.place)  # fmt: skip
    question = rng.choice(["Urgent or can it wait?", "Priority: high or low?",
                           "Does somebody have to run at once?"])  # fmt: skip
    answers = {
        "Urgent or can it wait?": ("urgent", "can wait"),
        "Priority: high or low?": ("high", "low"),
        "Does somebody have to run at once?": ("Yes, at once.", "No, it can wait."),
    }[question]
    parts = [question, rng.choice(["", f"{names(rng, 1)[0]}, {clock(rng)}: "]) + text]
    rng.shuffle(parts)
    return "\n".join(parts), answers[0 if hot else 1], place.key


KINDS: tuple[Callable[[Random], Filed], ...] = (_department, _place, _several, _urgent)


def _template(make: Callable[[Random], Filed]) -> Template:
    name = "routing/" + make.__name__.strip("_")

    def template(rng: Random) -> Draft:
        prompt, answer, group = make(rng)
        if rng.random() < 0.1:
            more, reply, _ = make(rng)
            return chat(name, [prompt, answer, more, reply], group=group)
        system = sometimes(rng, 0.2, rng.choice(SYSTEMS))
        return ask(name, prompt, answer, system=system, group=group)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {"routing": tuple(_template(make) for make in KINDS)}
