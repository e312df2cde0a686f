"""Lists of ideas and short made-up stories about the places of the world."""

from dataclasses import dataclass
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, bullets, capital, chat, sometimes
from benchmarks.demo_pool.world import DAYS, Scene, names, scene


@dataclass(frozen=True, slots=True)
class Theme:
    """Something to collect ideas for."""

    key: str
    wishes: tuple[str, ...]
    ideas: tuple[str, ...]


THEMES = (
    Theme("guests", ("How could {place} win more {guest}s?",
    "Ideas to fill {place} on a slow day?"),
          ("A morning in which children explain the place to adults", "Free tea for whoever comes "
           "by bicycle", "A wall where every {guest} leaves one sentence", "An hour without "
           "talking", "A card that is stamped and pays off at the tenth visit", "Live music in the "
           "corner nobody uses", "A swap shelf for {many}", "Opening until midnight once a month",
           "A guessing game about the weight of {many}", "A map of the world with a pin per "
           "{guest}")),
    Theme("gift", ("A present for a {worker} that costs little?", "What can one give to somebody "
                   "who works {at}?"),
          ("An apron with many pockets", "A thermos with the name engraved", "A photograph of the "
           "place a hundred years ago", "A day off, covered by you", "Warm socks, two pairs",
           "A drawing by the children", "A good pocket knife", "A basket of {many} with a ribbon",
           "A radio that survives dust", "A voucher for a massage")),
    Theme("game", ("Games for a rainy afternoon {at}?", "How do I keep six children busy {at}?"),
          ("Hide one of the {many} and give hints in rhyme", "Build the tallest tower from empty "
           "boxes", "Guess sounds with closed eyes", "A relay race with a spoon and an egg",
           "Tell a story, one sentence each", "Draw the {worker} without looking at the paper",
           "Memory with pairs of {many}", "Find ten things that are round", "Invent a secret "
           "alphabet", "Play shop with buttons as coins")),
    Theme("name", ("Names for a cat that lives {at}?", "What could we call our new boat? It "
                   "belongs to the {worker}."),
          ("Biscuit", "Captain Fog", "Pepper", "Old Reliable", "Miss Whistle", "Lantern", "Second "
           "Helping", "Thimble", "Professor", "Monsoon", "Marmalade", "Half Past Nine")),
    Theme("saving", ("How can we waste less {at}?", "Ways to save power and paper {at}?"),
          ("Switch off the lamps by a timer", "Write on both sides of every sheet", "Repair "
           "{many} before buying new ones", "Collect rain for cleaning", "Lend rarely used tools",
           "Put a lid on every pot", "Sell yesterday's {many} for half the price", "Weigh the bin "
           "each week and post the number", "Share deliveries with the shop next door",
           "Close the door in winter")),
    Theme("sign", ("A slogan for {place}?", "Something witty for the board in front of {place}?"),
          ("Come in, we have chairs", "Good {many}, bad jokes", "Today as fresh as yesterday was",
           "Smile, the {worker} is watching", "Too early? Never. Too late? Try us",
           "Where {many} find their people", "We were here before the internet",
           "Dogs welcome, owners too", "Small place, long memory", "Nothing online, everything at "
           "hand")),
    Theme("party", ("What shall we do for the birthday of {place}?", "Plan a feast {at}, please: "
                    "some ideas."),
          ("A parade with lanterns from the bridge", "A cake for every decade", "Old photographs "
           "on a line", "A raffle in which {many} are the prizes", "The {worker} tells how it all "
           "began", "Dancing on the street", "A time capsule, to be opened in twenty years",
           "Free entry for everybody born on that day", "A choir of {guest}s", "A quiz with "
           "impossible questions")),
    Theme("learn", ("How can I learn the trade of a {worker}?", "I start {at} next month. How "
                    "do I prepare?"),
          ("Watch for a day without asking", "Write down ten words you do not understand", "Ask "
           "who left the job and why", "Learn to handle {many} blindfolded", "Buy good shoes",
           "Read the notice board from top to bottom", "Offer to do what nobody likes",
           "Practice with cheap material", "Make friends with the cleaner", "Keep a diary of "
           "mistakes")),
)  # fmt: skip
LEADS = ("", "", "Brainstorm: ", "I need {k} ideas. ", "Quick list, please. ", "Be creative. ")
SYSTEMS = ("You are full of ideas.", "Answer with a list.", "No explanations, just the list.")


def _ideas(rng: Random, theme: Theme) -> Draft:
    place, k = scene(rng), rng.randint(3, 6)
    words = {"place": place.place, "at": place.at, "worker": place.worker, "guest": place.guest,
             "many": rng.choice(place.goods)[1]}  # fmt: skip
    ideas = [idea.format(**words) for idea in rng.sample(theme.ideas, min(k + 1, 9))]
    prompt = rng.choice(LEADS).format(k=k) + rng.choice(theme.wishes).format(**words)
    name = f"brainstorming/{theme.key}"
    if rng.random() < 0.15:
        return chat(name, [prompt, bullets(rng, ideas[:k]), rng.choice(["One more?", "Another!"]),
                           ideas[-1]], group=place.key)  # fmt: skip
    system = sometimes(rng, 0.2, rng.choice(SYSTEMS))
    return ask(name, prompt, bullets(rng, ideas[:k]), system=system, group=place.key)


OPENINGS = (
    "Once there was a {worker} named {a} who never slept before midnight.",
    "In {place} by the river lived a mouse that could count to nine.",
    "{a} had promised not to open the last of the {many}.",
    "Every {day} at the same hour a bell rang {at}, and nobody knew why.",
    "Long before there were cars, {a} carried {many} over the hill.",
    "The first thing {a} noticed {at} was the silence.",
)
MIDDLES = (
    "One evening a stranger came in and asked for {many} that sing.",
    "Then the lights went out, and something small ran over the floor.",
    "{b} laughed at it, but only until the wind turned.",
    "Under the oldest of the {many} lay a letter in blue ink.",
    "A fox sat at the door and waited as if it had an appointment.",
    "Nobody but {b} heard the knocking in the wall.",
)
TURNS = (
    "{a} did not run away, but put a chair by the stove.",
    "So they made a bargain: one song for each of the {many}.",
    "It turned out that the letter was meant for {b}.",
    "For three nights they kept watch, and on the third they understood.",
    "{b} whispered a word that only the very old still know.",
    "They followed the footprints to the end of the street and further.",
)
ENDINGS = (
    "Since then there has been an empty chair {at}, just in case.",
    "In the morning everything was as before, except for the smell of snow.",
    "And if you listen closely on a {day}, you can hear it too.",
    "{a} told nobody, and that is why I know it only from the mouse.",
    "They are friends to this day, and they still argue about {many}.",
    "What was in the box? That is another story.",
)
STORY_WISHES = (
    "Tell me a bedtime story about {place}.", "A very short tale with {many} in it, please.",
    "Make up something strange that happens {at}.", "Story time! Hero: a {worker} called {a}.",
    "Write a fairy tale of four sentences, set {at}.", "I cannot sleep. Something with {many}?",
    "Begin a mystery {at} and end it quickly.", "Invent a legend that {guest}s could be told.",
)  # fmt: skip


def _story(rng: Random, opening: str) -> Draft:
    place: Scene = scene(rng)
    a, b = names(rng, 2)
    words = {
        "place": place.place, "at": place.at, "worker": place.worker, "guest": place.guest,
        "many": rng.choice(place.goods)[1], "a": a, "b": b, "day": rng.choice(DAYS),
    }  # fmt: skip
    parts = [opening, rng.choice(MIDDLES), rng.choice(TURNS), rng.choice(ENDINGS)]
    text = " ".join(capital(part.format(**words)) for part in parts)
    prompt = rng.choice(STORY_WISHES).format(**words)
    name = f"stories/{OPENINGS.index(opening)}"
    if rng.random() < 0.15:
        end = capital(rng.choice(ENDINGS).format(**words))
        return chat(name, [prompt, text, "I want another ending.", end], group=place.key)
    title = rng.choice(["", "", f"**{capital(place.place)} at night**\n\n"])
    return ask(name, prompt, title + text, group=place.key)


def _idea_template(theme: Theme) -> Template:
    def template(rng: Random) -> Draft:
        return _ideas(rng, theme)

    return template


def _story_template(opening: str) -> Template:
    def template(rng: Random) -> Draft:
        return _story(rng, opening)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    "brainstorming": tuple(_idea_template(theme) for theme in THEMES),
    "stories": tuple(_story_template(opening) for opening in OPENINGS),
}
