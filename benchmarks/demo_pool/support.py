"""Conversations at the counter: several turns, always with the house's own instructions."""

from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, capital, chat
from benchmarks.demo_pool.world import DAYS, Scene, clock, names, scene

SYSTEMS = (
    "You answer for {place}. Be friendly and short.",
    "You are the assistant of {place}. Never promise a refund above {limit} dollars.",
    "{b} runs {place}. You write in that name, politely and without jargon.",
    "You chat with {guest}s {at}. If you do not know something, say so.",
)


def _return(rng: Random, s: Scene) -> list[str]:
    one, many, *_ = rng.choice(s.goods)
    number, n = rng.randint(1000, 9999), rng.randint(2, 9)
    return [
        rng.choice([f"I want to give back {n} {many}.", f"The {many} are not what I expected.",
                    f"Can one return a {one}?".replace("a e", "an e").replace("a a", "an a")]),
        rng.choice(["Of course. What is the order number?", "I am sorry to hear that. Which order "
                    "is it?", "Yes, within two weeks. Do you have the number at hand?"]),
        rng.choice([f"{number}", f"It says {number}.", f"Number {number}, I think."]),
        rng.choice([
            f"Thank you. Bring the {many} of order {number} to the counter and you get your money.",
            f"Found it. I have sent a label for order {number}; just print it.",
        ]),
        rng.choice(["Perfect, thanks.", "And if I lost the bill?", "Great."]),
        rng.choice(["You are welcome.", "No problem, the number is enough.", "Glad to help!"]),
    ]  # fmt: skip


def _hours(rng: Random, s: Scene) -> list[str]:
    day, first, last = rng.choice(DAYS), clock(rng, 7, 10), clock(rng, 17, 20)
    return [
        rng.choice([f"Are you open on {day}?", f"When can I come {day}?", f"{day} hours?"]),
        f"On {day} we are open from {first} to {last}.",
        rng.choice(["And on holidays?", "What about tomorrow?", "Is it crowded then?"]),
        rng.choice(["That I do not know for certain; please call before you come.",
                    "I cannot see that from here. Shall somebody call you back?"]),
    ]  # fmt: skip


def _order(rng: Random, s: Scene) -> list[str]:
    (_, many, low, high), (_, others, low2, high2) = rng.sample(s.goods, 2)
    n, m, p, q = (rng.randint(2, 9), rng.randint(2, 9), rng.randint(low, high),
                  rng.randint(low2, high2))  # fmt: skip
    who = names(rng, 1)[0]
    return [
        f"I would like {n} {many} and {m} {others}.",
        f"Gladly. {capital(many)} are {p} dollars each and {others} {q}. That makes "
        f"{n * p + m * q} dollars. Under which name?",
        who,
        rng.choice([f"Noted for {who}: {n} {many}, {m} {others}. Anything else?",
                    f"Thank you, {who}. It will be ready in an hour."]),
        rng.choice([f"Leave out the {others}.", f"No {others} after all."]),
        f"Done. Then it is {n} {many} for {n * p} dollars.",
    ]  # fmt: skip


def _angry(rng: Random, s: Scene) -> list[str]:
    many = rng.choice(s.goods)[1]
    return [
        rng.choice([f"This is the third time that my {many} are wrong!!", "Nobody answers the "
                    "phone. Unbelievable.", f"I have waited an hour {s.at}!"]),
        rng.choice(["That should not happen, and I am sorry. What went wrong exactly?",
                    "I understand your anger. May I know what happened?"]),
        rng.choice([f"Half of the {many} were missing and the {s.worker} only laughed.",
                    "I was sent from one counter to the next."]),
        rng.choice([f"I will speak to the {s.worker} today and find the {many}.",
                    "That was wrong of us. A colleague will call you before the evening."]),
        rng.choice(["Fine.", "I hope so.", "We will see."]),
        rng.choice(["Thank you for giving us another chance.", "I will see to it myself."]),
    ]  # fmt: skip


def _booking(rng: Random, s: Scene) -> list[str]:
    n, day, time = rng.randint(2, 14), rng.choice(DAYS), clock(rng, 10, 19)
    later = clock(rng, 10, 19)
    return [
        rng.choice([f"A reservation for {n} on {day}, please.", f"We are {n} and would come "
                    f"{day}."]),
        rng.choice(["At what time?", f"With pleasure. When on {day}?"]),
        time,
        rng.choice([f"At {time} we are full. Would {later} do?", f"Noted: {n} people, {day}, "
                    f"{time}. May I have a name?"]),
        rng.choice([f"Yes. {names(rng, 1)[0]}.", f"All right, {names(rng, 1)[0]} is the name."]),
        rng.choice([f"See you on {day}!", f"It is booked for {n}. See you then."]),
    ]  # fmt: skip


def _unknown(rng: Random, s: Scene) -> list[str]:
    many = rng.choice(s.goods)[1]
    return [
        rng.choice([f"Where do your {many} come from?", f"Are the {many} insured?", f"Who founded "
                    f"{s.place}?", f"How many {many} did you sell last year?"]),
        rng.choice(["I do not know that, but I can ask.", f"The {s.worker} would know. Shall I "
                    "pass the question on?"]),
        rng.choice(["Yes please.", "No, never mind.", "Do that. My number is on file."]),
        rng.choice(["You will hear from us.", "All right. Is there anything else?"]),
    ]  # fmt: skip


KINDS: tuple[Callable[[Random, Scene], list[str]], ...] = (
    _return, _hours, _order, _angry, _booking, _unknown,
)  # fmt: skip


def _template(make: Callable[[Random, Scene], list[str]]) -> Template:
    name = "support_chats/" + make.__name__.strip("_")

    def template(rng: Random) -> Draft:
        place = scene(rng)
        system = rng.choice(SYSTEMS).format(
            place=place.place, at=place.at, guest=place.guest, b=names(rng, 1)[0],
            limit=rng.randrange(20, 200, 10),
        )  # fmt: skip
        turns = make(rng, place)
        if len(turns) > 4 and rng.random() < 0.4:
            turns = turns[:4]
        return chat(name, turns, system=system, group=place.key)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    "support_chats": tuple(_template(make) for make in KINDS)
}
