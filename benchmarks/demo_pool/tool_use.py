"""Conversations in which the assistant calls a function and reads its result."""

import json
from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.rows import Draft, Message, Template, turn
from benchmarks.demo_pool.world import DAYS, TOWNS, Scene, names, scene

Call = tuple[str, dict[str, object], dict[str, object], str]
"""Question, arguments, result, answer."""


def _tool(name: str, purpose: str, **kinds: str) -> dict[str, object]:
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    parameters = {"type": "object", "properties": properties, "required": list(kinds)}
    function = {"name": name, "description": purpose, "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = {
    "weather": _tool("get_weather", "Forecast for a town", town="string", day="string"),
    "price": _tool("look_up_price", "Price of an article in dollars", article="string"),
    "stock": _tool("check_stock", "Pieces in store", article="string"),
    "timer": _tool("set_timer", "Start a timer", minutes="integer", label="string"),
    "route": _tool("find_train", "Next connection", origin="string", destination="string"),
}


def _weather(rng: Random, s: Scene) -> Call:
    town, day = rng.choice(TOWNS), rng.choice(DAYS)
    sky = rng.choice(["rain", "sun", "fog", "snow"])
    degrees = rng.randint(-9, 1) if sky == "snow" else rng.randint(3, 24)
    question = rng.choice([f"Do I need an umbrella in {town} on {day}?",
                           f"We want to sit outside on {day} in {town}.",
                           f"Weather for {s.place} of {town}, {day}?"])  # fmt: skip
    answer = f"The forecast for {day} in {town} says {sky} and {degrees} degrees."
    return question, {"town": town, "day": day}, {"sky": sky, "degrees": degrees}, answer


def _price(rng: Random, s: Scene) -> Call:
    one, many, low, high = rng.choice(s.goods)
    n, price = rng.randint(1, 8), rng.randint(low, high)
    question = rng.choice([f"What do {n} {many} cost?",
    f"I have 50 dollars. Is that enough for {n} "
                           f"{many}?", f"{n} {many}, please. How much?"])  # fmt: skip
    answer = f"One costs {price} dollars, so {n} cost {n * price} dollars."
    if "50" in question:
        answer += " That is enough." if n * price <= 50 else " That is too much for 50 dollars."
    return question, {"article": one}, {"price": price}, answer


def _stock(rng: Random, s: Scene) -> Call:
    one, many, *_ = rng.choice(s.goods)
    n = rng.choice([0, rng.randint(1, 60)])
    question = rng.choice([f"Are there any {many} left {s.at}?", f"How many {many} do you have?"])
    return question, {"article": one}, {"pieces": n}, f"There are {n or 'no'} {many} in store."


def _timer(rng: Random, s: Scene) -> Call:
    minutes, label = rng.randint(3, 90), rng.choice(["bread", "tea", "laundry", "soup"])
    question = rng.choice([f"Remind me in {minutes} minutes, it is about the {label}.",
                           f"Timer, {minutes} minutes, {label}."])  # fmt: skip
    return (question, {"minutes": minutes, "label": label}, {"ok": True},
            f"Your timer for {label} runs: {minutes} minutes.")  # fmt: skip


def _route(rng: Random, s: Scene) -> Call:
    a, b = rng.sample(TOWNS, 2)
    leave = f"{rng.randint(6, 21)}:{rng.randint(0, 59):02d}"
    question = rng.choice([f"When does the next train go from {a} to {b}?",
                           f"I am in {a} and have to be at {s.place} in {b}."])  # fmt: skip
    return (question, {"origin": a, "destination": b}, {"departure": leave},
            f"The next train from {a} to {b} leaves at {leave}.")  # fmt: skip


MAKERS: dict[str, Callable[[Random, Scene], Call]] = {
    "weather": _weather, "price": _price, "stock": _stock, "timer": _timer, "route": _route,
}  # fmt: skip


def _template(kind: str) -> Template:
    def template(rng: Random) -> Draft:
        place = scene(rng)
        question, arguments, result, answer = MAKERS[kind](rng, place)
        others = rng.sample([t for k, t in TOOLS.items() if k != kind], rng.randint(0, 2))
        tools = [TOOLS[kind], *others]
        function = TOOLS[kind]["function"]
        name = function["name"] if isinstance(function, dict) else ""
        number = f"call_{rng.randint(100, 999)}"
        call = {"name": name, "arguments": json.dumps(arguments)}
        user: Message = turn("user", question)
        if rng.random() < 0.2:
            user["name"] = names(rng, 1)[0].lower()
        messages: list[Message] = [
            user,
            {"role": "assistant", "content": None,
             "tool_calls": [{"id": number, "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": number, "content": json.dumps(result)},
            turn("assistant", answer),
        ]  # fmt: skip
        return Draft(f"tool_use/{kind}", messages, group=place.key, tools=tools)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {"tool_use": tuple(_template(k) for k in MAKERS)}
