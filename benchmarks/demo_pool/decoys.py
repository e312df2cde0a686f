"""Other tasks in the words of the targets: reviews to write, code to read, exercises to invent.

Word matching confuses them with opinions to judge, code to write and problems to solve.
"""

import re
from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.arithmetic import PROBLEMS
from benchmarks.demo_pool.python_tasks import JOBS, Job
from benchmarks.demo_pool.review_words import GENERAL, REMARKS
from benchmarks.demo_pool.rows import Draft, Template, ask, capital, chat, sometimes
from benchmarks.demo_pool.sql import QUERIES, laid_out, tables
from benchmarks.demo_pool.world import Scene, names, scene

Written = tuple[str, str]

MOODS = {"good": ("positive", "happy", "favorable"), "bad": ("negative", "unhappy", "angry")}
STARS = {"good": ("4 stars", "5 stars"), "bad": ("1 star", "2 stars")}


def _review(rng: Random, s: Scene) -> Written:
    mood = rng.choice(["good", "bad"])
    word, stars = rng.choice(MOODS[mood]), rng.choice(STARS[mood])
    wish = rng.choice([
        f"Write a {word} review of {s.place}.", f"Invent what a {word} {s.guest} would post.",
        f"I need a sample comment with {stars} for testing.", f"Compose feedback, {stars}, about "
        f"{s.place}.", f"Put yourself in the place of a {word} {s.guest}: review in two sentences.",
    ])  # fmt: skip
    remarks = [*rng.sample(REMARKS[s.key][mood], 2), rng.choice(GENERAL[mood])]
    rng.shuffle(remarks)
    head = rng.choice(["", "", f"{capital(stars)}. ", f"**{capital(stars)}**\n"])
    return wish.replace("a unhappy", "an unhappy").replace("a angry", "an angry"), head + " ".join(
        remarks
    )


def _balanced(rng: Random, s: Scene) -> Written:
    good, bad = (rng.choice(REMARKS[s.key][mood]) for mood in ("good", "bad"))
    wish = rng.choice([
        f"A review of {s.place} that is neither positive nor negative, please.",
        f"Draft a mixed review: one thing to praise {s.at}, one to blame.",
        f"Three stars for {s.place}. Put it into words.",
    ])  # fmt: skip
    first, second = rng.sample([good, bad], 2)
    return wish, f"{first} {second} {rng.choice(['Average, all in all.', 'So, three stars.'])}"


def _reply(rng: Random, s: Scene) -> Written:
    mood = rng.choice(["good", "bad"])
    comment = f"{rng.choice(REMARKS[s.key][mood])} {rng.choice(GENERAL[mood])}"
    wish = rng.choice([
        f'Answer this review in the name of {s.place}: "{comment}"',
        f"A {s.guest} posted: {comment} What do we reply in public?",
        f"Reply to the comment.\n{comment}",
    ])  # fmt: skip
    good = ("Thank you, that made our day. Come back soon!", f"The {s.worker} blushed when reading "
            "this. Many thanks!",
            "How kind of you to take the time. See you next week?")  # fmt: skip
    bad = ("We are sorry. Please call us, so that we can put it right.", f"That is not how it "
           f"should be {s.at}. May we invite you again?", "Thank you for being frank; we have "
           "talked about it in the team.")  # fmt: skip
    return wish, rng.choice(good if mood == "good" else bad)


QUERY_WORDS = {
    "_filter": "It lists the names of all people from one place, from a to z.",
    "_total": "It adds up price times number of pieces for one article.",
    "_best": "It ranks the articles by pieces and keeps the top few.",
    "_join": "It names everybody who ever bought that article, without repeats.",
    "_having": "It counts people by place and keeps places above a limit.",
    "_never": "It finds the people without a single purchase.",
    "_month": "It gives the takings per month of one year.",
    "_above_mean": "It shows articles whose price lies above the mean price.",
    "_update": "It lowers the price of one article.",
    "_insert": "It adds one person.",
    "_delete": "It throws away old rows.",
    "_per_person": "It shows visits and spending of each person, also of those without any.",
}
READ_ASKS = (
    "What does this do?", "Explain it in one sentence.", "I found this. What is it for?",
    "Put it in words for the {worker}.", "Read this to me as if I knew nothing of code.",
    "What would come out, roughly?", "Comment on this snippet.",
)  # fmt: skip


def _query(rng: Random, s: Scene) -> Written:
    make = rng.choice(QUERIES)
    _, query = make(rng, tables(rng, s), s)
    question = rng.choice(READ_ASKS).format(worker=s.worker)
    parts = [question, laid_out(rng, query)]
    rng.shuffle(parts)
    return "\n\n".join(parts), QUERY_WORDS[make.__name__]


def _purpose(job: Job) -> str:
    """What a job's code is for, from its first wording."""
    first = re.split(r"\.(?:\s|$)|\n", job.wordings[0])[0]
    return first[0].lower() + first[1:]


def _snippet(rng: Random, s: Scene) -> Written:
    job = rng.choice([j for j in JOBS if not j.key.startswith("bug") and "?" not in j.wordings[0]])
    code = job.code.replace("<f>", rng.choice(["f", "work", "run_it", "step", "helper"]))
    purpose = _purpose(job).replace("<many>", "things").replace("<guest>", "customer")
    purpose = purpose.replace("<box>", "box")
    question = rng.choice(READ_ASKS).format(worker=s.worker)
    answer = rng.choice([f"Its purpose: {purpose}. {job.remark}", f"It was written to this end: "
                         f"{purpose}."])  # fmt: skip
    return f"{question}\n```python\n{code}\n```", answer


def _exercise(rng: Random, s: Scene) -> Written:
    text, steps, result, _ = rng.choice(PROBLEMS)(rng, s)
    kid = rng.choice(["nine-year-olds", "my class", "a quiz evening", "the school paper"])
    wish = rng.choice([
        f"Invent an exercise in arithmetic for {kid}, set {s.at}.",
        f"I teach sums. A problem that plays {s.at}, please, with key.",
        f"Make up a word problem whose solution is {result}.",
        f"Something to calculate for {kid}? The {s.worker} should occur.",
    ])  # fmt: skip
    key = rng.choice([f"Solution: {result}", f"(Answer: {result})", f"Key: {steps[-1][1]}"])
    return wish, f"{text}\n\n{key}"


MAKERS: dict[str, tuple[Callable[[Random, Scene], Written], ...]] = {
    "review_writing": (_review, _balanced, _reply),
    "code_reading": (_query, _snippet),
    "exercise_writing": (_exercise,),
}
SYSTEMS = ("Be concrete.", "You help small businesses.", "Plain words only.")


def _template(family: str, make: Callable[[Random, Scene], Written]) -> Template:
    name = f"{family}/{make.__name__.strip('_')}"

    def template(rng: Random) -> Draft:
        place = scene(rng)
        wish, answer = make(rng, place)
        opener = rng.choice(["", "", "", f"{names(rng, 1)[0]} here. ", "Hi! ", "Please help. "])
        if rng.random() < 0.1:
            more, reply = make(rng, place)
            return chat(name, [opener + wish, answer, more, reply], group=place.key)
        system = sometimes(rng, 0.15, rng.choice(SYSTEMS))
        return ask(name, opener + wish, answer, system=system, group=place.key)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    family: tuple(_template(family, make) for make in makers) for family, makers in MAKERS.items()
}
