"""Sentences in English, French and German from one hand-written table of patterns."""

from random import Random

from benchmarks.demo_pool.lexicon import DAYS, NUMBERS, PLACES, THINGS, Place, Thing
from benchmarks.demo_pool.rows import Draft, Template, ask, capital, chat, sometimes
from benchmarks.demo_pool.world import NAMES

# en / fr / de. a: indefinite thing, the: definite thing (subject), many: plural, at: at the place,
# place: the place (subject), name, n: number word, day, clock: hour as digits.
PATTERNS: tuple[tuple[str, str, str], ...] = (
    ("{name} buys {a} {at}.", "{name} achète {a} {at}.", "{name} kauft {at} {a}."),
    ("{the} is {at}.", "{the} est {at}.", "{the} ist {at}."),
    ("I have {n} {many}, but I need {m}.", "J'ai {n} {many}, mais il m'en faut {m}.",
     "Ich habe {n} {many}, aber ich brauche {m}."),
    ("{place} is closed on {day}.", "{place} est fermé{e} le {day}.",
     "{place} ist am {day} geschlossen."),
    ("Where can I find {a}?", "Où puis-je trouver {a} ?", "Wo finde ich {a}?"),
    ("{name} is waiting {at} with {n} friends.", "{name} attend {at} avec {n} amis.",
     "{name} wartet {at} mit {n} Freunden."),
    ("Yesterday we saw {n} {many} {at}.", "Hier, nous avons vu {n} {many} {at}.",
     "Gestern haben wir {at} {n} {many} gesehen."),
    ("{the} costs {n} euros.", "{the} coûte {n} euros.", "{the} kostet {n} Euro."),
    ("Could you give me {a}, please?", "Pourriez-vous me donner {a}, s'il vous plaît ?",
     "Könnten Sie mir bitte {a} geben?"),
    ("On {day} {name} will bring {a}.", "{day}, {name} apportera {a}.",
     "Am {day} bringt {name} {a} mit."),
    ("Nobody was {at} when the rain began.",
     "Il n'y avait personne {at} quand la pluie a commencé.",
     "Niemand war {at}, als der Regen anfing."),
    ("{name} forgot {a} {at}.", "{name} a oublié {a} {at}.", "{name} hat {at} {a} vergessen."),
    ("There are more than {n} {many} {at}.", "Il y a plus de {n} {many} {at}.",
     "Es gibt {at} mehr als {n} {many}."),
    ("We meet at {clock} o'clock {at}.", "Nous nous retrouvons à {clock} heures {at}.",
     "Wir treffen uns um {clock} Uhr {at}."),
    ("Are {n} {many} enough for {m} people?",
     "Est-ce que {n} {many} suffisent pour {m} personnes ?",
     "Reichen {n} {many} für {m} Personen?"),
    ("My sister works {at}.", "Ma sœur travaille {at}.", "Meine Schwester arbeitet {at}."),
    ("I would rather have {a} than {b}.", "Je préférerais {a} à {b}.",
     "Ich hätte lieber {a} als {b}."),
    ("{name} says that {the} is too heavy.", "{name} dit que {the} est trop lourd{e}.",
     "{name} sagt, dass {the} zu schwer ist."),
)  # fmt: skip
SECOND = (
    ("It was cold.", "Il faisait froid.", "Es war kalt."),
    ("Thank you very much.", "Merci beaucoup.", "Vielen Dank."),
    ("That does not matter.", "Ce n'est pas grave.", "Das macht nichts."),
    ("We have time until the evening.", "Nous avons le temps jusqu'au soir.",
     "Wir haben bis zum Abend Zeit."),
    ("The children are asleep.", "Les enfants dorment.", "Die Kinder schlafen."),
    ("It is not far.", "Ce n'est pas loin.", "Es ist nicht weit."),
    ("I will call you tomorrow.", "Je t'appellerai demain.", "Ich rufe dich morgen an."),
    ("Everything was sold by noon.", "Tout était vendu à midi.", "Bis Mittag war alles verkauft."),
    ("The old bridge is being repaired.", "Le vieux pont est en réparation.",
     "Die alte Brücke wird repariert."),
    ("Who has the umbrella?", "Qui a le parapluie ?", "Wer hat den Regenschirm?"),
)  # fmt: skip
LANGUAGES = {"fr": "French", "de": "German"}
ASKS = (
    "Translate into {language}:",
    "How do you say this in {language}?",
    "Put this into {language}, please.",
    "{language} version?",
    "What would a {language} speaker write?",
    "I need this in {language} for a sign.",
    "In {language}:",
    "Please render in {language}.",
)
ASKS_BACK = (
    "What does this mean?",
    "I got this message and do not understand it.",
    "Translate to English.",
    "In English, please:",
    "My neighbor wrote the following. What is it about, word for word?",
    "English version?",
)
SYSTEMS = (
    "You are an interpreter. Only the translation, no comment.",
    "Translate whatever the user writes between English and {language}.",
    "You help travelers with phrases.",
)


def _thing(thing: Thing, language: str) -> dict[str, str]:
    return {kind: str(getattr(thing, f"{language}_{kind}")) for kind in ("a", "the", "many")}


def _place(place: Place, language: str) -> dict[str, str]:
    at = str(getattr(place, f"{language}_at"))
    return {"place": str(getattr(place, language)), "at": at}


def _feminine(fr_noun: str, article: str, pattern: str) -> str:
    """`e` where the French participle or adjective has to agree with a feminine subject."""
    subject_is_place = "{place}" in pattern
    feminine = fr_noun.startswith("la ") or fr_noun == "l'école" if subject_is_place else (
        article.startswith("une ")
    )  # fmt: skip
    return "e" if feminine else ""


def sentence(rng: Random, number: int, other: str) -> tuple[str, str, str]:
    """Pattern `number` filled in English and in `other`; third: the scene."""
    # A train is neither open nor closed.
    closes = "{place}" in PATTERNS[number][0]
    group = rng.choice([key for key in sorted(PLACES) if not (closes and key == "train")])
    place = PLACES[group]
    first, second = rng.sample(THINGS[group], 2)
    n, m, day = rng.randrange(6), rng.randrange(6, 11), rng.randrange(7)
    shared = {"name": rng.choice(NAMES), "clock": str(rng.randint(2, 12))}
    texts = []
    for language in ("en", other):
        pattern = PATTERNS[number][("en", "fr", "de").index(language)]
        words = {**shared, **_thing(first, language), **_place(place, language),
                 "b": _thing(second, language)["a"], "n": NUMBERS[language][n],
                 "m": NUMBERS[language][m], "day": DAYS[language][day],
                 "e": _feminine(place.fr, first.fr_a, pattern)}  # fmt: skip
        texts.append(capital(pattern.format(**words)))
    return texts[0], texts[1], group


def _forth(rng: Random, name: str, pattern: int, other: str) -> Draft:
    source, result, group = sentence(rng, pattern, other)
    if rng.random() < 0.4:
        pair = rng.choice(SECOND)
        source, result = f"{source} {pair[0]}", f"{result} {pair[('en', 'fr', 'de').index(other)]}"
    question = rng.choice(ASKS).format(language=LANGUAGES[other])
    prompt = rng.choice([f"{question}\n{source}", f'"{source}" {question}', f"{question} {source}"])
    if rng.random() < 0.12:
        more, done, _ = sentence(rng, rng.randrange(len(PATTERNS)), other)
        turns = [prompt, result, f"And this: {more}", done]
        return chat(name, turns, group=group, language=other)
    system = sometimes(rng, 0.2, rng.choice(SYSTEMS).format(language=LANGUAGES[other]))
    return ask(name, prompt, result, system=system, group=group, language=other)


def _back(rng: Random, name: str, pattern: int, other: str) -> Draft:
    result, source, group = sentence(rng, pattern, other)
    question = rng.choice(ASKS_BACK)
    if rng.random() < 0.3:
        pair = rng.choice(SECOND)
        source, result = f"{source} {pair[('en', 'fr', 'de').index(other)]}", f"{result} {pair[0]}"
    prompt = rng.choice([f"{question}\n\n{source}", f"{source}\n{question}"])
    answer = rng.choice([result, f'It means: "{result}"', result])
    return ask(name, prompt, answer, group=group, language="en")


def _template(family: str, pattern: int, other: str) -> Template:
    name = f"{family}/{pattern}"

    def template(rng: Random) -> Draft:
        form = _back if rng.random() < 0.25 else _forth
        return form(rng, name, pattern, other)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    family: tuple(_template(family, pattern, other) for pattern in range(len(PATTERNS)))
    for family, other in (("french_translation", "fr"), ("german_translation", "de"))
}
