"""The small world that all families share: the same places, people and goods occur in every task.

A farm is in a word problem, in a review, in a query and in a story alike, so that what tells two
samples apart is the task and not the topic.
"""

from dataclasses import dataclass
from random import Random

NAMES = (
    "Ada", "Amir", "Anouk", "Bea", "Bruno", "Carla", "Chidi", "Clara", "Dario", "Dina", "Elif",
    "Emil", "Esther", "Farid", "Fiona", "Greta", "Hana", "Hugo", "Ines", "Ivan", "Jana",
    "Jonas", "Kofi", "Lena", "Leo", "Lucia", "Malik", "Marta", "Mei", "Milan", "Nadia", "Nils",
    "Noor", "Olga", "Omar", "Paula", "Pedro", "Priya", "Ravi", "Rosa", "Ruth", "Samir", "Selma",
    "Tariq", "Tessa", "Theo", "Ula", "Viktor", "Wanda", "Yuki", "Zofia",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
TOWNS = (
    "Aldmere",
    "Brackwell",
    "Corvin",
    "Dunholt",
    "Eastrey",
    "Greyford",
    "Hollin Bay",
    "Ketterby",
    "Lowmarsh",
    "Marrow Hill",
    "Northwick",
    "Oakhaven",
    "Pellham",
    "Quarry End",
    "Rushton",
    "Silverbrook",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One place of the world.

    key:     short name, also the `group` of its samples.
    place:   noun phrase with article.
    at:      prefix with which something happens there.
    worker:  who works there; guest: who comes there (both singular).
    goods:   (singular, plural, lowest price, highest price in whole currency units).
    box:     (singular, plural) of what the goods are packed in.
    gets:    verbs for "obtains" in present and past.
    """

    key: str
    place: str
    at: str
    worker: str
    guest: str
    goods: tuple[tuple[str, str, int, int], ...]
    box: tuple[str, str]
    gets: tuple[str, str]


def _goods(text: str) -> tuple[tuple[str, str, int, int], ...]:
    parts = [line.split("/") for line in text.split("; ")]
    return tuple((one, many, int(low), int(high)) for one, many, low, high in parts)


SCENES = (
    Scene(
        "farm", "the farm", "at the farm", "farmer", "visitor",
        _goods("apple/apples/1/3; egg/eggs/1/2; pumpkin/pumpkins/3/9; "
               "jar of honey/jars of honey/4/9; bag of potatoes/bags of potatoes/3/8"),
        ("crate", "crates"), ("picks", "picked"),
    ),
    Scene(
        "bakery", "the bakery", "at the bakery", "baker", "customer",
        _goods("roll/rolls/1/2; loaf of bread/loaves of bread/3/6; croissant/croissants/2/4; "
               "cake/cakes/12/30; pretzel/pretzels/1/3"),
        ("tray", "trays"), ("bakes", "baked"),
    ),
    Scene(
        "train", "the train", "on the train", "conductor", "passenger",
        _goods("ticket/tickets/8/40; sandwich/sandwiches/4/9; newspaper/newspapers/2/4; "
               "cup of tea/cups of tea/2/4; suitcase/suitcases/30/90"),
        ("carriage", "carriages"), ("carries", "carried"),
    ),
    Scene(
        "library", "the library", "in the library", "librarian", "reader",
        _goods("book/books/5/20; map/maps/4/12; magazine/magazines/3/7; "
               "bookmark/bookmarks/1/3; poster/posters/5/12"),
        ("shelf", "shelves"), ("collects", "collected"),
    ),
    Scene(
        "school", "the school", "at the school", "teacher", "pupil",
        _goods("pencil/pencils/1/2; notebook/notebooks/2/5; chair/chairs/20/45; "
               "ruler/rulers/1/3; paint set/paint sets/6/15"),
        ("cupboard", "cupboards"), ("hands out", "handed out"),
    ),
    Scene(
        "garden", "the garden", "in the garden", "gardener", "neighbor",
        _goods("tulip/tulips/1/3; rose bush/rose bushes/9/20; packet of seeds/packets of "
        "seeds/2/4; "
               "flowerpot/flowerpots/3/9; tomato plant/tomato plants/3/6"),
        ("bed", "beds"), ("plants", "planted"),
    ),
    Scene(
        "harbor", "the harbor", "at the harbor", "fisher", "sailor",
        _goods("fish/fish/4/12; lobster/lobsters/15/35; rope/ropes/10/25; "
               "life jacket/life jackets/25/60; net/nets/18/50"),
        ("boat", "boats"), ("catches", "caught"),
    ),
    Scene(
        "museum", "the museum", "in the museum", "guide", "visitor",
        _goods("postcard/postcards/1/2; guidebook/guidebooks/8/18; ticket/tickets/6/15; "
               "poster/posters/7/14; puzzle/puzzles/9/22"),
        ("room", "rooms"), ("shows", "showed"),
    ),
    Scene(
        "clinic", "the animal clinic", "at the animal clinic", "vet", "pet owner",
        _goods("bandage/bandages/2/5; thermometer/thermometers/9/20; leash/leashes/8/25; "
               "bottle of syrup/bottles of syrup/6/14; bag of pet food/bags of pet food/10/30"),
        ("cabinet", "cabinets"), ("uses", "used"),
    ),
    Scene(
        "club", "the football club", "at the football club", "coach", "player",
        _goods("shirt/shirts/15/40; ball/balls/12/30; scarf/scarves/8/18; "
               "ticket/tickets/7/25; water bottle/water bottles/4/9"),
        ("bag", "bags"), ("orders", "ordered"),
    ),
    Scene(
        "hotel", "the hotel", "at the hotel", "receptionist", "guest",
        _goods("towel/towels/6/15; pillow/pillows/10/28; breakfast/breakfasts/8/18; "
               "blanket/blankets/15/40; room key/room keys/4/9"),
        ("cart", "carts"), ("needs", "needed"),
    ),
    Scene(
        "market", "the market", "at the market", "stallholder", "shopper",
        _goods("melon/melons/2/6; cheese/cheeses/5/14; candle/candles/3/8; "
               "basket/baskets/7/20; scarf/scarves/9/24"),
        ("stall", "stalls"), ("sells", "sold"),
    ),
    Scene(
        "workshop", "the bicycle workshop", "in the bicycle workshop", "mechanic", "cyclist",
        _goods("bicycle/bicycles/90/400; tire/tires/14/35; bell/bells/5/12; "
               "chain/chains/12/30; lamp/lamps/9/28"),
        ("rack", "racks"), ("repairs", "repaired"),
    ),
    Scene(
        "theater", "the theater", "at the theater", "director", "spectator",
        _goods("ticket/tickets/10/45; program/programs/2/6; costume/costumes/30/90; "
               "wig/wigs/20/60; poster/posters/5/12"),
        ("row", "rows"), ("prepares", "prepared"),
    ),
)  # fmt: skip
BY_KEY = {scene.key: scene for scene in SCENES}


def names(rng: Random, n: int) -> list[str]:
    """Different first names."""
    return rng.sample(NAMES, n)


def scene(rng: Random) -> Scene:
    """Any place of the world."""
    return rng.choice(SCENES)


def clock(rng: Random, first: int = 7, last: int = 20) -> str:
    """A time of day on a quarter of an hour, as 14:15."""
    return f"{rng.randint(first, last)}:{rng.choice(['00', '15', '30', '45'])}"
