"""Dates, times and units, all computed."""

from collections.abc import Callable
from datetime import date, timedelta
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, capital, chat, sometimes
from benchmarks.demo_pool.world import DAYS, MONTHS, Scene, names, scene

Fact = tuple[str, str, dict[str, object]]
"""Question, answer, what the tests recompute."""


def written(day: date) -> str:
    """4 March 2024."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _any_day(rng: Random) -> date:
    return date(rng.randint(2015, 2027), 1, 1) + timedelta(days=rng.randrange(365))


def _later(rng: Random, s: Scene) -> Fact:
    start, n = _any_day(rng), rng.randint(5, 200)
    end = start + timedelta(days=n)
    question = rng.choice([
        f"The repairs {s.at} began on {written(start)} and take {n} days. When are they over?",
        f"What date is {n} days after {written(start)}?",
    ])  # fmt: skip
    return question, written(end), {"start": start, "days": n, "end": end}


def _between(rng: Random, s: Scene) -> Fact:
    start, n = _any_day(rng), rng.randint(10, 300)
    end = start + timedelta(days=n)
    a = names(rng, 1)[0]
    question = rng.choice([
        f"{a} was {s.at} on {written(start)} and again on {written(end)}. How many days apart?",
        f"Days from {written(start)} to {written(end)}?",
    ])  # fmt: skip
    return question, f"{n} days", {"start": start, "days": n, "end": end}


def _weekday(rng: Random, s: Scene) -> Fact:
    day = _any_day(rng)
    question = rng.choice([
        f"Which weekday was or will be {written(day)}?",
        f"The feast {s.at} is set for {written(day)}. What day of the week is that?",
    ])  # fmt: skip
    return question, DAYS[day.weekday()], {"day": day, "weekday": DAYS[day.weekday()]}


def _leap(rng: Random, s: Scene) -> Fact:
    year = rng.choice([1700, 1800, 1900, 2000, 2100, 2400, *range(1960, 2060)])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    reason = (
        "is divisible by 400" if year % 400 == 0
        else "is divisible by 100 but not by 400" if year % 100 == 0
        else "is divisible by 4" if year % 4 == 0
        else "is not divisible by 4"
    )  # fmt: skip
    answer = f"{'Yes' if leap else 'No'}: {year} {reason}."
    question = rng.choice([f"Does {year} have a 29 February?", f"Leap year or not: {year}?",
                           f"Will the calendar {s.at} need 366 pages in {year}?"])  # fmt: skip
    return question, answer, {"year": year, "leap": leap}


def _duration(rng: Random, s: Scene) -> Fact:
    start, minutes = rng.randint(6 * 60, 14 * 60), rng.randint(35, 500)
    end = start + minutes
    a, b = (f"{t // 60}:{t % 60:02d}" for t in (start, end))
    question = rng.choice([
        f"Doors {s.at} open at {a} and close at {b}. How long is that?",
        f"From {a} to {b}: how many hours and minutes?",
    ])  # fmt: skip
    answer = f"{minutes // 60} h {minutes % 60} min"
    return question, answer, {"from": a, "to": b, "minutes": minutes}


def _arrival(rng: Random, s: Scene) -> Fact:
    start, minutes = rng.randint(5 * 60, 22 * 60), rng.randint(61, 400)
    end = (start + minutes) % 1440
    a, b = (f"{t // 60}:{t % 60:02d}" for t in (start, end))
    who = names(rng, 1)[0]
    question = (
        f"{who} leaves for {s.place} at {a} and needs {minutes // 60} h "
        f"{minutes % 60} min. What does the clock say on arrival?"
    )
    answer = b + (" on the next day" if start + minutes >= 1440 else "")
    return question, answer, {"from": a, "to": b, "minutes": minutes}


UNITS: tuple[tuple[str, str, float], ...] = (
    ("kilometers", "miles", 0.621371), ("miles", "kilometers", 1.609344),
    ("kilograms", "pounds", 2.204623), ("pounds", "kilograms", 0.45359237),
    ("inches", "centimeters", 2.54), ("feet", "meters", 0.3048), ("meters", "feet", 3.28084),
    ("liters", "US gallons", 0.264172), ("ounces", "grams", 28.349523),
    ("hectares", "acres", 2.471054), ("knots", "kilometers per hour", 1.852),
    ("teaspoons", "milliliters", 4.928922),
)  # fmt: skip
SETTINGS = (
    "A sign {at} says {x} {u}. What is that in {v}?",
    "{x} {u} in {v}, please.",
    "How many {v} are {x} {u}?",
    "The {worker} wrote down {x} {u}, but the form wants {v}.",
    "Convert: {x} {u} = ? {v}",
    "Someone {at} told me {x} {u}. I only know {v}.",
)


def _convert(rng: Random, s: Scene) -> Fact:
    unit, other, factor = rng.choice(UNITS)
    x = rng.randint(2, 180)
    value = round(x * factor, 2)
    question = rng.choice(SETTINGS).format(at=s.at, worker=s.worker, x=x, u=unit, v=other)
    answer = rng.choice([f"{value} {other}", f"{x} {unit} are about {value} {other}.",
                         f"{x} * {factor} = {value}, so {value} {other}."])  # fmt: skip
    return question, answer, {"x": x, "factor": factor, "value": value}


def _weather(rng: Random, s: Scene) -> Fact:
    celsius = rng.randint(-20, 42)
    fahrenheit = round(celsius * 9 / 5 + 32, 1)
    facts: dict[str, object] = {"celsius": celsius, "fahrenheit": fahrenheit}
    if rng.random() < 0.5:
        question = rng.choice([f"{celsius} °C in Fahrenheit?",
                               f"It is {celsius} degrees Celsius {s.at}. What do I tell my aunt "
                               "in Ohio?"])  # fmt: skip
        return question, f"{fahrenheit} °F", facts
    question = rng.choice([f"What is {fahrenheit} °F in Celsius?",
                           f"The thermometer {s.at} shows {fahrenheit} Fahrenheit. And in "
                           "Celsius?"])  # fmt: skip
    return question, f"{celsius} °C", facts


def _oven(rng: Random, s: Scene) -> Fact:
    celsius = rng.randrange(120, 245, 5)
    fahrenheit = round(celsius * 9 / 5 + 32, 1)
    question = rng.choice([
        f"The recipe says {celsius} °C. My oven shows °F.",
        f"{capital(rng.choice(s.goods)[1])} aside: to what do I set an American oven for "
        f"{celsius} °C?",
        f"Bake at {celsius} degrees Celsius. What is that in the other scale?",
    ])  # fmt: skip
    return question, f"{fahrenheit} °F", {"celsius": celsius, "fahrenheit": fahrenheit}


def _data_size(rng: Random, s: Scene) -> Fact:
    megabytes, n = rng.randint(2, 90), rng.randint(20, 900)
    question = rng.choice([
        f"{n} pictures taken {s.at} of {megabytes} MB each: how many GB (1 GB = 1000 MB)?",
        f"How many gigabytes are {n} files of {megabytes} megabytes, with 1000 MB to the GB?",
    ])  # fmt: skip
    value = n * megabytes / 1000
    return question, f"{value} GB", {"n": n, "megabytes": megabytes, "value": value}


def _pace(rng: Random, s: Scene) -> Fact:
    meters = rng.randint(2, 40)
    value = round(meters * 3.6, 1)
    who = names(rng, 1)[0]
    question = rng.choice([
        f"{who} moves at {meters} meters per second. In kilometers per hour?",
        f"{meters} m/s = ? km/h",
        f"The wind {s.at} blows with {meters} m/s. What would a speedometer show in km/h?",
    ])  # fmt: skip
    return question, f"{value} km/h", {"x": meters, "factor": 3.6, "value": value}


def _roman(rng: Random, s: Scene) -> Fact:
    year = rng.randint(1400, 2030)
    left, text = year, ""
    for value, mark in ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
                        (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"),
                        (1, "I")):  # fmt: skip
        text += mark * (left // value)
        left %= value
    facts: dict[str, object] = {"year": year, "roman": text}
    if rng.random() < 0.5:
        return f"A stone {s.at} bears the year {text}. Which year?", str(year), facts
    return f"{year} in Roman numerals, for a plate {s.at}?", text, facts


MAKERS: dict[str, tuple[Callable[[Random, Scene], Fact], ...]] = {
    "dates_and_times": (_later, _between, _weekday, _leap, _duration, _arrival),
    "units": (_convert, _oven, _weather, _roman, _data_size, _pace),
}
SYSTEMS = ("Just the result.", "You are the calendar and the ruler of the house.", "Be exact.")


def _template(family: str, make: Callable[[Random, Scene], Fact]) -> Template:
    name = f"{family}/{make.__name__.strip('_')}"

    def template(rng: Random) -> Draft:
        place = scene(rng)
        question, answer, facts = make(rng, place)
        if answer[0].isdigit() and answer[-1] != "." and rng.random() < 0.3:
            answer = rng.choice([f"That is {answer}.", f"{answer}.", f"It comes to {answer}."])
        if rng.random() < 0.1:
            more, reply, _ = make(rng, scene(rng))
            turns = [question, answer, f"And: {more}", reply]
            return chat(name, turns, group=place.key, facts=facts)
        system = sometimes(rng, 0.15, rng.choice(SYSTEMS))
        return ask(name, question, capital(answer), system=system, group=place.key, facts=facts)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    family: tuple(_template(family, make) for make in makers) for family, makers in MAKERS.items()
}
