"""Recipes, amounts for more people (computed), and small questions from the kitchen."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, bullets, chat, sometimes
from benchmarks.demo_pool.world import Scene, names, scene


@dataclass(frozen=True, slots=True)
class Dish:
    """One dish: amounts for two people as (grams or pieces, thing), and steps in order."""

    name: str
    parts: tuple[tuple[int, str], ...]
    steps: tuple[str, ...]
    minutes: int
    keeps: str


DISHES = (
    Dish("potato soup", ((400, "g potatoes"), (2, "carrots"), (1, "leek"), (600, "ml broth")),
         ("Dice the vegetables.", "Soften the leek in butter.", "Add the rest and simmer for "
          "twenty minutes.", "Mash half of it for body."), 35, "three days in the fridge"),
    Dish("apple crumble", ((500, "g apples"), (80, "g butter"), (100, "g flour"), (60, "g sugar")),
         ("Slice the fruit into a dish.", "Rub butter, flour and sugar into crumbs.", "Spread them "
          "on top.", "Bake at 190 °C until golden."), 50, "two days, covered"),
    Dish("lentil stew", ((200, "g lentils"), (1, "onion"), (2, "tomatoes"), (500, "ml water")),
         ("Fry the onion with cumin.", "Add lentils, tomatoes and water.", "Cook gently for half "
          "an hour.", "Sharpen it with vinegar."), 40, "four days, and it freezes well"),
    Dish("pumpkin risotto", ((160, "g rice"), (300, "g pumpkin"), (1, "onion"), (600, "ml broth")),
         ("Sweat the onion, then the rice.", "Pour in broth ladle by ladle while stirring.", "Add "
          "the pumpkin halfway.", "Finish with cheese off the heat."), 35, "badly; eat it at once"),
    Dish("omelette with herbs", ((4, "eggs"), (20, "g butter"), (2, "spoons of milk")),
         ("Beat eggs and milk with salt.", "Let the butter foam in a hot pan.", "Pour in, pull the "
          "edges to the middle.", "Scatter herbs and fold."), 8, "not at all"),
    Dish("fish in paper", ((2, "fillets of fish"), (1, "lemon"), (200, "g fennel")),
         ("Shave the fennel onto baking paper.", "Lay the fish on it with lemon slices.", "Fold "
          "the paper tightly.", "Bake for fifteen minutes at 200 °C."), 25, "one day, eaten cold"),
    Dish("tomato salad", ((500, "g tomatoes"), (1, "red onion"), (3, "spoons of oil")),
         ("Cut tomatoes and onion thinly.", "Salt them and wait ten minutes.", "Stir oil into the "
          "juice.", "Tear basil over it."), 15, "half a day"),
    Dish("pancakes", ((200, "g flour"), (300, "ml milk"), (2, "eggs")),
         ("Whisk milk into the flour.", "Beat in the eggs and rest the batter.", "Fry thin rounds "
          "in little butter.", "Keep them warm under a towel."), 30, "one day between plates"),
    Dish("rye rolls", ((250, "g rye flour"), (5, "g salt"), (7, "g yeast"), (180, "ml water")),
         ("Stir everything into a sticky dough.", "Let it rise for two hours.", "Shape rolls with "
          "wet hands.", "Bake hot, with steam, for twenty minutes."), 160, "two days in a cloth"),
    Dish("rice pudding", ((120, "g rice"), (600, "ml milk"), (40, "g sugar")),
         ("Bring milk and rice to a simmer.", "Stir now and then for thirty minutes.", "Sweeten at "
          "the end.", "Dust with cinnamon."), 40, "two days; add milk when warming it"),
    Dish("vegetable curry", ((300, "g cauliflower"), (200, "g peas"), (400, "ml coconut milk")),
         ("Roast the spice paste.", "Add cauliflower and coconut milk.", "Put in the peas for the "
          "last five minutes.", "Serve with lime."), 30, "three days"),
    Dish("melon with ham", ((1, "melons"), (120, "g ham"), (1, "limes")),
         ("Cut the melon into wedges.", "Take off the rind.", "Drape ham over each.", "Squeeze "
          "lime on top."), 10, "a few hours"),
)  # fmt: skip
SWAPS = (
    ("eggs", "a spoon of ground flax in water per egg, if they only bind"),
    ("butter", "the same weight of margarine, or a fifth less oil"),
    ("milk", "oat drink, unsweetened"),
    ("sugar", "two thirds as much honey, and a little less liquid"),
    ("flour", "ground oats, though the crumb gets heavier"),
    ("lemon", "a dash of mild vinegar"),
    ("broth", "water with soy sauce and a bay leaf"),
    ("yeast", "baking powder, and then bake at once"),
    ("leek", "an onion with a little garlic"),
    ("cream", "thick yogurt, stirred in off the heat"),
)
TROUBLES = (
    ("too salty", "Add a raw potato or more liquid, then taste again after ten minutes."),
    ("too thin", "Let it boil without a lid, or mash some of the vegetables into it."),
    ("burnt at the bottom", "Pour it into a clean pot without scraping."),
    ("bland", "Acid first, a few drops of lemon, and only then more salt."),
    ("lumpy", "Press it through a sieve or blend it for a moment."),
    ("too hot", "Stir in yogurt or a spoon of sugar; water does not help."),
)

Cooked = tuple[str, str, dict[str, object]]


def _recipe(rng: Random, s: Scene) -> Cooked:
    dish = rng.choice(DISHES)
    wish = rng.choice([
        "How do I make {d}?", "Something simple for two {at}: {d}?", "Recipe for {d}, please.",
        "We have guests {at} and want {d}. What do I need and do?", "I bought things for {d} and "
        "forgot how it goes.", "{a} asked for {d}. Steps?",
    ]).format(d=dish.name, at=s.at, a=names(rng, 1)[0])  # fmt: skip
    needs = ", ".join(f"{n} {thing}" for n, thing in dish.parts)
    answer = rng.choice(["For two: ", "You need ", "Ingredients (2 people): "]) + needs + ".\n"
    return wish, answer + bullets(rng, dish.steps), {}


def _scaled(rng: Random, s: Scene) -> Cooked:
    dish, people = rng.choice(DISHES), rng.choice([4, 6, 8, 10, 12, 16, 20, 30])
    needs = ", ".join(f"{n} {thing}" for n, thing in dish.parts)
    wish = rng.choice([
        "{d} for two takes {needs}. We are {p} {at}.", "Recipe for 2: {needs}. Amounts for {p}?",
        "How much do I buy for {p} plates of {d}, if two plates take {needs}?",
    ]).format(d=dish.name, needs=needs, p=people, at=s.at)  # fmt: skip
    scaled = [f"{n * people // 2} {thing}" for n, thing in dish.parts]
    facts = {"parts": dish.parts, "people": people, "scaled": scaled}
    return wish[0].upper() + wish[1:], bullets(rng, scaled), facts


def _swap(rng: Random, s: Scene) -> Cooked:
    thing, other = rng.choice(SWAPS)
    dish = rng.choice(DISHES).name
    wish = rng.choice([
        f"No {thing} in the house. What instead, for {dish}?", f"What replaces {thing}?",
        f"My {s.guest} cannot have {thing}. An idea?", f"Can one cook {s.at} without {thing}?",
    ])  # fmt: skip
    return (
        wish,
        rng.choice([f"Take {other}.", f"Use {other}.", f"{other[0].upper()}{other[1:]}."]),
        {},
    )


def _keeps(rng: Random, s: Scene) -> Cooked:
    dish = rng.choice(DISHES)
    wish = rng.choice([
        f"How long does {dish.name} keep?", f"Can I prepare {dish.name} for tomorrow {s.at}?",
        f"There is a lot of {dish.name} left over from the feast {s.at}.",
    ])  # fmt: skip
    return wish, rng.choice([f"It keeps {dish.keeps}.", f"Shelf life: {dish.keeps}."]), {}


def _rescue(rng: Random, s: Scene) -> Cooked:
    state, help_ = rng.choice(TROUBLES)
    dish = rng.choice(["potato soup", "lentil stew", "pumpkin risotto", "vegetable curry"])
    wish = rng.choice([
        f"My {dish} is {state}!", f"The {s.worker} tried the {dish} and says it is {state}.",
        f"{dish} came out {state}, guests arrive in ten minutes", f"Help, {state}: {dish}.",
    ])  # fmt: skip
    return wish[0].upper() + wish[1:], help_, {}


def _time(rng: Random, s: Scene) -> Cooked:
    dish, hour = rng.choice(DISHES), rng.randint(12, 20)
    start = hour * 60 - dish.minutes
    wish = rng.choice([
        f"{dish.name} takes {dish.minutes} minutes. Dinner {s.at} is at {hour}:00. When do I "
        "begin?",
        f"I want to serve {dish.name} at {hour}:00 ({dish.minutes} min). Start when?",
    ])  # fmt: skip
    clock = f"{start // 60}:{start % 60:02d}"
    return wish[0].upper() + wish[1:], f"Begin at {clock}.", {"minutes": dish.minutes}


KINDS: tuple[Callable[[Random, Scene], Cooked], ...] = (
    _recipe, _scaled, _swap, _keeps, _rescue, _time,
)  # fmt: skip
SYSTEMS = ("You are a calm cook.", "Kitchen help, short answers.", "You cook with what is there.")


def _template(make: Callable[[Random, Scene], Cooked]) -> Template:
    name = "cooking/" + make.__name__.strip("_")

    def template(rng: Random) -> Draft:
        place = scene(rng)
        wish, answer, facts = make(rng, place)
        if rng.random() < 0.12:
            more, reply, _ = rng.choice(KINDS)(rng, place)
            return chat(name, [wish, answer, more, reply], group=place.key, facts=facts)
        system = sometimes(rng, 0.15, rng.choice(SYSTEMS))
        return ask(name, wish, answer, system=system, group=place.key, facts=facts)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {"cooking": tuple(_template(make) for make in KINDS)}
