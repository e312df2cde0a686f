"""Advice for trips to invented towns whose places are those of the world."""

from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, bullets, capital, chat, sometimes
from benchmarks.demo_pool.world import TOWNS, Scene, names, scene

TIPS: dict[str, tuple[str, ...]] = {
    "farm": ("walk out to the farm and pick apples", "have milk still warm at the farm"),
    "bakery": ("queue at the bakery before seven", "get pretzels for the road at the bakery"),
    "train": ("ride the old train along the river", "take the slow train for its view"),
    "library": ("climb to the reading room of the library", "look at the maps in the library"),
    "school": ("hear the choir in the hall of the school", "see the mosaic at the old school"),
    "garden": ("sit in the garden under the limes", "smell the roses in the garden"),
    "harbor": ("eat fried fish at the harbor", "watch the boats come in at the harbor"),
    "museum": ("greet the mammoth in the museum", "spend the rainy hour in the museum"),
    "clinic": ("pet the donkeys behind the animal clinic", "read the funny sign of the clinic"),
    "club": ("join the crowd at the football club", "see a game from the wooden stand"),
    "hotel": ("have tea on the roof of the hotel", "look at the wall of keys in the hotel"),
    "market": ("try cheese at the market", "buy a basket at the market"),
    "workshop": ("rent bicycles at the workshop", "let the workshop pump up your tires"),
    "theater": ("get the cheap seats at the theater", "see a comedy at the theater"),
}
SEASONS = {
    "spring": ("a rain jacket", "a second pair of shoes", "a light scarf", "tissues for the "
               "pollen", "an umbrella that survives wind"),
    "summer": ("a hat", "sun cream", "a bottle to refill", "swimwear", "thin long sleeves for "
               "the evening"),
    "autumn": ("a warm sweater", "boots for wet leaves", "a thermos", "a torch, since it gets "
               "dark early", "a bag for chestnuts"),
    "winter": ("thick socks", "gloves", "a cap that covers the ears", "lip balm", "spikes for "
               "icy streets"),
}  # fmt: skip

Advice = tuple[str, str]


def _day(rng: Random, s: Scene) -> Advice:
    town = rng.choice(TOWNS)
    first, second, third = rng.sample(sorted(TIPS), 3)
    wish = rng.choice([
        "One day in {t}. What should I see?", "We stop in {t} for a few hours, two adults and "
        "a child.", "My boss sends me to {t}. Anything worth staying for?", "Plan a Saturday in "
        "{t}, please.", "{a} and I have never been to {t}. Where to begin?",
    ]).format(t=town, a=names(rng, 1)[0])  # fmt: skip
    tips = [rng.choice(TIPS[key]) for key in (first, second, third)]
    if rng.random() < 0.5:
        answer = f"In the morning {tips[0]}. After lunch {tips[1]}, and in the evening {tips[2]}."
    else:
        answer = bullets(rng, [capital(tip) for tip in tips])
    return wish, answer


def _pack(rng: Random, s: Scene) -> Advice:
    season, town = rng.choice(sorted(SEASONS)), rng.choice(TOWNS)
    things = rng.sample(SEASONS[season], rng.randint(3, 4))
    wish = rng.choice([
        f"What goes into the suitcase for {town} in {season}?", f"Packing for a {season} week in "
        f"{town}.", f"{capital(season)}, {town}, hand luggage only. Ideas?",
        f"I visit a {s.worker} in {town} in {season}. What do I bring?",
    ])  # fmt: skip
    return wish, bullets(rng, [capital(thing) for thing in things])


def _route(rng: Random, s: Scene) -> Advice:
    a, b, c = rng.sample(TOWNS, 3)
    hours = rng.randint(1, 5)
    wish = rng.choice([
        f"How do I get from {a} to {b} without a car?", f"{a} - {b}, best way?",
        f"Is there a direct connection from {a} to {s.place} of {b}?",
    ])  # fmt: skip
    answer = rng.choice([
        f"Take the train to {c} and change there; with luck it takes {hours} hours.",
        f"A bus leaves from the square in {a} and stops in {c}. Count on {hours} hours.",
        f"Only with one change, in {c}. Reserve a seat on Fridays.",
        f"By ferry if the sea is calm, otherwise by train through {c}.",
    ])  # fmt: skip
    return wish, answer


def _stay(rng: Random, s: Scene) -> Advice:
    town, budget = rng.choice(TOWNS), rng.randint(30, 120)
    wish = rng.choice([
        f"A bed in {town} for under {budget} dollars?", f"Where do we sleep in {town} with "
        f"{rng.choice(['a dog', 'a baby', 'four bicycles', 'no booking'])}?",
        f"Quiet place for the night near {s.place} in {town}?",
    ])  # fmt: skip
    answer = rng.choice([
        f"Ask for a room above {s.place}; it is plain, but the price is fair.",
        f"The hostel by the river, about {max(20, budget - 15)} dollars, breakfast extra.",
        "The hotel on the hill takes everyone who calls before six.",
        "Try the farm outside; they let two rooms and cook dinner.",
    ])  # fmt: skip
    return wish, answer


def _manners(rng: Random, s: Scene) -> Advice:
    town = rng.choice(TOWNS)
    wish, *answers = rng.choice([
        (f"What should a tourist not do in {town}?",
         "Do not sit down before the oldest person has. Otherwise nobody is strict.",
         "Walk past people without a greeting. The rest is forgiven."),
        (f"Any customs I should know before I visit {s.place} in {town}?",
         "Greet first, ask second; that opens every door.",
         "Shops close from one to three. Knocking does not help."),
        (f"How much does one tip in {town}?", "Rounding up is enough. Leaving nothing is rude.",
         "A tenth in restaurants, a coin elsewhere."),
        (f"Do people in {town} mind photographs?",
         f"Ask the {s.worker} before you take pictures, and put the phone away at the table.",
         "Landscapes are free for all; for faces one asks."),
        (f"I am invited to dinner by a {s.worker} in {town}. What do I bring?",
         "Flowers or fruit, and a good appetite.", "Something from home, however small."),
    ])  # fmt: skip
    return wish, rng.choice(answers)


def _season(rng: Random, s: Scene) -> Advice:
    town = rng.choice(TOWNS)
    event = rng.choice(["regatta", "cheese fair", "lantern walk", "open night", "harvest feast"])
    month = rng.choice(["March", "May", "June", "September", "October", "December"])
    wish = rng.choice([
        f"Best month for {town}?", f"When is {town} at its nicest and not full?",
        f"We want to see {s.place} in {town}. Which time of the year?",
    ])  # fmt: skip
    answer = rng.choice([
        f"In {month}, when the {event} is on; book early.",
        f"{month}. The crowds are gone and {s.place} is still open.",
        f"Avoid August. {month} has the {event} and mild evenings.",
    ])  # fmt: skip
    return wish, answer


KINDS: tuple[Callable[[Random, Scene], Advice], ...] = (
    _day, _pack, _route, _stay, _manners, _season,
)  # fmt: skip
SYSTEMS = ("You work in a tourist office.", "You know every corner of the coast.", "Be brief.")


def _template(make: Callable[[Random, Scene], Advice]) -> Template:
    name = "travel/" + make.__name__.strip("_")

    def template(rng: Random) -> Draft:
        place = scene(rng)
        wish, answer = make(rng, place)
        if rng.random() < 0.15:
            more, reply = rng.choice(KINDS)(rng, place)
            return chat(name, [wish, answer, more, reply], group=place.key)
        system = sometimes(rng, 0.2, rng.choice(SYSTEMS))
        return ask(name, wish, answer, system=system, group=place.key)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {"travel": tuple(_template(make) for make in KINDS)}
