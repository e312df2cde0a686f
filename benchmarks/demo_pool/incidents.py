"""Events with names, days and numbers filled in: the raw text of many families."""

from dataclasses import dataclass
from random import Random

from benchmarks.demo_pool import incidents_country, incidents_town
from benchmarks.demo_pool.world import DAYS, NAMES

FILLERS = (
    "It was an ordinary week otherwise.",
    "The story was in the local paper the next morning.",
    "The weather played its part as well.",
    "People in the street still talk about it.",
    "At first nobody took it seriously.",
    "There are a few photographs of the scene.",
    "A dog barked through most of it.",
    "Someone had brought a thermos of coffee.",
    "It was not the first surprise of the season.",
    "Those who were there tell it slightly differently.",
)


@dataclass(frozen=True, slots=True)
class Incident:
    """One event.

    group:   key of its scene.     title:   short headline.
    lead:    opening sentence.     details: three sentences in the order of events.
    outcome: closing sentence.     gist:    the whole in one sentence.
    wrong:   a claim that contradicts the text.
    reason:  a clause that answers "why" about the event.
    name, day, n: what was filled in; they occur in lead or details.
    """

    group: str
    title: str
    lead: str
    details: tuple[str, ...]
    outcome: str
    gist: str
    wrong: str
    reason: str
    name: str
    day: str
    n: int

    @property
    def story(self) -> str:
        """All sentences in order."""
        return " ".join((self.lead, *self.details, self.outcome))

    @property
    def sentences(self) -> list[str]:
        """All sentences in order, as a list."""
        return [self.lead, *self.details, self.outcome]


EVENTS = incidents_country.EVENTS + incidents_town.EVENTS


def incident(rng: Random, number: int | None = None) -> Incident:
    """Event `number` (any, if None) with a drawn name, day and number."""
    event = rng.choice(EVENTS) if number is None else EVENTS[number % len(EVENTS)]
    group, title, lead, details, outcome, gist, wrong, reason, (low, high) = event
    name, day, n = rng.choice(NAMES), rng.choice(DAYS), rng.randint(low, high)

    def fill(text: str) -> str:
        return text.format(name=name, day=day, n=n)

    return Incident(
        group, title, fill(lead), tuple(fill(d) for d in details), fill(outcome), fill(gist),
        fill(wrong), fill(reason), name, day, n,
    )  # fmt: skip


def padded(rng: Random, event: Incident, n_fillers: int = 2) -> str:
    """The story with a few sentences of no importance in between."""
    sentences = event.sentences
    for filler in rng.sample(FILLERS, n_fillers):
        sentences.insert(rng.randint(1, len(sentences)), filler)
    return " ".join(sentences)
