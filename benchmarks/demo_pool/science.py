"""Why is it so? Questions on nature and technology with hand-written answers."""

from dataclasses import dataclass
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, chat, sometimes
from benchmarks.demo_pool.science_facts import FACTS
from benchmarks.demo_pool.world import names, scene

FRAMES = (
    "{q}", "{q}", "{q}", "A {guest} asked me {at}: {q}", "My child wants to know: {q}",
    "{q} Two sentences, please.", "Explain to a {worker}: {q}", "{a} and I disagree. {q}",
    "While waiting {at} I wondered: {q}", "For a quiz {at}: {q}", "{q} I never understood that.",
)  # fmt: skip
SYSTEMS = (
    "You explain nature to curious people.",
    "Answer like a good teacher.",
    "Be exact but plain.",
    "You answer the questions of listeners on the radio.",
)
FOLLOW_UPS = ("In short?", "And in one sentence?", "Simpler, please.", "What is the main point?")


@dataclass(frozen=True, slots=True)
class Fact:
    """A question in two wordings, a short answer, and a sentence that adds to it."""

    key: str
    first: str
    second: str
    short: str
    more: str


def _draft(rng: Random, fact: Fact) -> Draft:
    place, name = scene(rng), f"science/{fact.key}"
    question = rng.choice([fact.first, fact.second])
    prompt = rng.choice(FRAMES).format(
        q=question, guest=place.guest, worker=place.worker, at=place.at, a=names(rng, 1)[0]
    )
    full = f"{fact.short} {fact.more}"
    if rng.random() < 0.15:
        return chat(name, [prompt, full, rng.choice(FOLLOW_UPS), fact.short], group=place.key)
    system = sometimes(rng, 0.2, rng.choice(SYSTEMS))
    answer = fact.short if rng.random() < 0.3 else full
    return ask(name, prompt, answer, system=system, group=place.key)


def _template(fact: Fact) -> Template:
    def template(rng: Random) -> Draft:
        return _draft(rng, fact)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    "science": tuple(_template(Fact(*fact)) for fact in FACTS)
}
