"""Word problems with computed answers; every equation of a solution is `left = right`."""

from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, capital, chat, sometimes
from benchmarks.demo_pool.world import Scene, names, scene

Problem = tuple[str, list[tuple[str, str]], int, str]
"""Question, steps (sentence, equation), result, its unit or noun."""

TUTORS = (
    "You are a patient tutor. Show every step.",
    "Explain your reasoning before you give a number.",
    "Answer for a child of ten.",
    "Work it out on paper, then reply.",
)
OPENERS = ("", "", "", "Can you help me with this one? ", "My daughter got this as homework. ",
           "A riddle from the kitchen table: ", "Quick one. ",
           "I keep getting a different result. ")  # fmt: skip
CLOSERS = (
    "So the answer is {x}.",
    "That makes {x}.",
    "Result: {x}",
    "**{x}**",
    "In the end there are {x}.",
    "The number we want is {x}.",
    "{x}, then.",
    "#### {x}",
)


def _sum_and_give(rng: Random, s: Scene) -> Problem:
    a, b = names(rng, 2)
    _, many, *_ = rng.choice(s.goods)
    x, y, z = rng.randint(12, 60), rng.randint(5, 40), rng.randint(3, 15)
    text = (
        f"{capital(s.at)}, {a} {s.gets[1]} {x} {many} in the morning and {y} after lunch. "
        f"{z} of the {many} went to {b}. How many did {a} still have?"
    )
    steps = [("Both times together", f"{x} + {y} = {x + y}"),
             ("After giving some away", f"{x + y} - {z} = {x + y - z}")]  # fmt: skip
    return text, steps, x + y - z, many


def _boxes(rng: Random, s: Scene) -> Problem:
    _, many, *_ = rng.choice(s.goods)
    n, per, rest = rng.randint(4, 15), rng.randint(6, 24), rng.randint(1, 20)
    text = (
        f"There are {n} {s.box[1]} {s.at}. Each holds {per} {many}, and {rest} more {many} lie "
        f"beside them. What is the total number of {many}?"
    )
    steps = [(f"In the {s.box[1]}", f"{n} * {per} = {n * per}"),
             ("With the loose ones", f"{n * per} + {rest} = {n * per + rest}")]  # fmt: skip
    return text, steps, n * per + rest, many


def _change(rng: Random, s: Scene) -> Problem:
    (_, many, low, high), (single, _, low2, high2) = rng.sample(s.goods, 2)
    n, p, q = rng.randint(2, 6), rng.randint(low, high), rng.randint(low2, high2)
    total = n * p + q
    note = next(v for v in (20, 50, 100, 200, 500, 1000, 5000) if v > total)
    a = names(rng, 1)[0]
    text = (
        f"{a} buys {n} {many} at {p} dollars each and one {single} for {q} dollars {s.at}, "
        f"paying with {note} dollars. How much change does the {s.worker} hand back?"
    )
    steps = [(f"Price of the {many}", f"{n} * {p} = {n * p}"),
             (f"With the {single}", f"{n * p} + {q} = {total}"),
             ("Change", f"{note} - {total} = {note - total}")]  # fmt: skip
    return text, steps, note - total, "dollars"


def _share(rng: Random, s: Scene) -> Problem:
    _, many, *_ = rng.choice(s.goods)
    people, each, left = rng.randint(3, 9), rng.randint(4, 19), rng.randint(0, 2)
    total = people * each + left
    text = (
        f"A {s.worker} divides {total} {many} equally among {people} helpers and keeps the "
        f"{left} that remain. How many {many} does every helper get?"
    )
    steps = [("Without the remainder", f"{total} - {left} = {total - left}"),
             ("Per helper", f"{total - left} / {people} = {each}")]  # fmt: skip
    return text, steps, each, many


def _ages(rng: Random, s: Scene) -> Problem:
    a, b, c = names(rng, 3)
    young, gap, factor = rng.randint(6, 20), rng.randint(2, 9), rng.randint(2, 3)
    old = factor * young
    text = (
        f"{a}, the {s.worker}, is {factor} times as old as {b}, who is {young}. "
        f"{c} is {gap} years younger than {a}. How old is {c}?"
    )
    steps = [(f"{a}'s age", f"{factor} * {young} = {old}"),
             (f"{c}'s age", f"{old} - {gap} = {old - gap}")]  # fmt: skip
    return text, steps, old - gap, "years"


def _wages(rng: Random, s: Scene) -> Problem:
    a = names(rng, 1)[0]
    hours, days, rate, bonus = (rng.randint(3, 8), rng.randint(2, 6), rng.randint(11, 24),
                                rng.randint(10, 60))  # fmt: skip
    text = (
        f"{a} helps out {s.at} for {hours} hours a day on {days} days. The pay is {rate} dollars "
        f"an hour plus a bonus of {bonus} dollars at the end. What does {a} earn altogether?"
    )
    n = hours * days
    steps = [("Hours", f"{hours} * {days} = {n}"), ("Wages", f"{n} * {rate} = {n * rate}"),
             ("With bonus", f"{n * rate} + {bonus} = {n * rate + bonus}")]  # fmt: skip
    return text, steps, n * rate + bonus, "dollars"


def _percent(rng: Random, s: Scene) -> Problem:
    _, many, *_ = rng.choice(s.goods)
    percent, price = rng.choice([10, 20, 25, 30, 40, 50, 75]), 20 * rng.randint(1, 15)
    off = price * percent // 100
    text = (
        f"A delivery of {many} to {s.place} used to cost {price} dollars. This week the {s.worker} "
        f"gets it {percent}% cheaper. What is the price now?"
    )
    steps = [("Reduction", f"{price} * {percent} / 100 = {off}"),
             ("New price", f"{price} - {off} = {price - off}")]  # fmt: skip
    return text, steps, price - off, "dollars"


def _journey(rng: Random, s: Scene) -> Problem:
    a = names(rng, 1)[0]
    speed, first, second, slow = (rng.randint(6, 12) * 10, rng.randint(2, 4), rng.randint(2, 3),
                                  rng.randint(1, 4) * 10)  # fmt: skip
    x, y = speed * first, (speed - slow) * second
    text = (
        f"To reach {s.place}, {a} drives {first} hours at {speed} km an hour and then {second} "
        f"hours at a speed that is {slow} km an hour lower. How long is the route in kilometers?"
    )
    steps = [("First part", f"{speed} * {first} = {x}"),
             ("Lower speed", f"{speed} - {slow} = {speed - slow}"),
             ("Second part", f"{speed - slow} * {second} = {y}"),
             ("Whole route", f"{x} + {y} = {x + y}")]  # fmt: skip
    return text, steps, x + y, "km"


def _two_prices(rng: Random, s: Scene) -> Problem:
    (_, many, low, high), (_, others, low2, high2) = rng.sample(s.goods, 2)
    m, n, p, q = (rng.randint(3, 12), rng.randint(3, 12), rng.randint(low, high),
                  rng.randint(low2, high2))  # fmt: skip
    text = (
        f"On one day the {s.worker} sold {m} {many} for {p} dollars apiece and {n} {others} for "
        f"{q} dollars apiece. How much money came in?"
    )
    steps = [(capital(many), f"{m} * {p} = {m * p}"), (capital(others), f"{n} * {q} = {n * q}"),
             ("Together", f"{m * p} + {n * q} = {m * p + n * q}")]  # fmt: skip
    return text, steps, m * p + n * q, "dollars"


def _growth(rng: Random, s: Scene) -> Problem:
    start, plus, weeks = rng.randint(10, 80), rng.randint(3, 15), rng.randint(3, 9)
    text = (
        f"In the first week {start} {s.guest}s came to see what was new {s.at}. Every following "
        f"week there were {plus} more than the week before. How many came in week {weeks + 1}?"
    )
    steps = [("Increase", f"{weeks} * {plus} = {weeks * plus}"),
             (f"Week {weeks + 1}",
              f"{start} + {weeks * plus} = {start + weeks * plus}")]  # fmt: skip
    return text, steps, start + weeks * plus, f"{s.guest}s"


def _average(rng: Random, s: Scene) -> Problem:
    _, many, *_ = rng.choice(s.goods)
    mean, d = rng.randint(12, 40), rng.randint(1, 9)
    a, b = mean - d, mean + d + rng.randint(0, 3)
    c = 3 * mean - a - b
    text = (
        f"The {s.worker} counted {a} {many} on Monday, {b} on Tuesday and {c} on Wednesday. "
        f"What is the average per day?"
    )
    steps = [("Sum", f"{a} + {b} + {c} = {3 * mean}"), ("Mean", f"{3 * mean} / 3 = {mean}")]
    return text, steps, mean, many


def _missing(rng: Random, s: Scene) -> Problem:
    _, many, *_ = rng.choice(s.goods)
    a, b = names(rng, 2)
    per, bags, have = rng.randint(5, 12), rng.randint(4, 9), rng.randint(6, 19)
    need = per * bags
    text = (
        f"{a} and {b} want to fill {bags} bags with {per} {many} each for the visitors. They have "
        f"only {have} {many} so far. How many are missing?"
    )
    steps = [
        ("Needed", f"{bags} * {per} = {need}"),
        ("Missing", f"{need} - {have} = {need - have}"),
    ]
    return text, steps, need - have, many


def _half(rng: Random, s: Scene) -> Problem:
    _, many, *_ = rng.choice(s.goods)
    quarter = rng.randint(5, 30)
    total = 4 * quarter
    text = (
        f"Half of the {total} {many} {s.at} were gone by noon, and half of the rest by the "
        f"evening. How many {many} were left?"
    )
    steps = [("At noon", f"{total} / 2 = {2 * quarter}"),
             ("In the evening", f"{2 * quarter} / 2 = {quarter}")]  # fmt: skip
    return text, steps, quarter, many


PROBLEMS: tuple[Callable[[Random, Scene], Problem], ...] = (
    _sum_and_give, _boxes, _change, _share, _ages, _wages, _percent, _journey, _two_prices,
    _growth, _average, _missing, _half,
)  # fmt: skip


def solution(rng: Random, steps: list[tuple[str, str]], result: int) -> str:
    """The steps in one of several forms, and the result."""
    style = rng.randrange(4)
    if style == 0:
        lines = [f"{label}: {equation}." for label, equation in steps]
    elif style == 1:
        lines = [f"Step {i}. {label}: {eq}" for i, (label, eq) in enumerate(steps, 1)]
    elif style == 2:
        lines = [f"{equation} ({label[0].lower() + label[1:]})" for label, equation in steps]
    else:
        lines = ["First we get " + "; then ".join(equation for _, equation in steps) + "."]
    return "\n".join([*lines, rng.choice(CLOSERS).format(x=result)])


def _template(make: Callable[[Random, Scene], Problem]) -> Template:
    name = "word_problems/" + make.__name__.strip("_")

    def template(rng: Random) -> Draft:
        place = scene(rng)
        text, steps, result, _ = make(rng, place)
        answer = solution(rng, steps, result)
        facts = {"result": result}
        question = rng.choice(OPENERS) + text
        if rng.random() < 0.1:
            turns = [question, answer, rng.choice(["Are you sure?", "Thanks. Only the number?"]),
                     rng.choice([f"Yes: {steps[-1][1]}.", f"{result}"])]  # fmt: skip
            return chat(name, turns, group=place.key, facts=facts)
        system = sometimes(rng, 0.15, rng.choice(TUTORS))
        return ask(name, question, answer, system=system, group=place.key, facts=facts)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    "word_problems": tuple(_template(make) for make in PROBLEMS)
}
