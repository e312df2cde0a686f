"""Everyday conversations in French: no translation, though full of the same French words."""

from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.lexicon import DAYS, NUMBERS, PLACES, THINGS
from benchmarks.demo_pool.rows import Draft, Template, ask, bullets, capital, chat, sometimes
from benchmarks.demo_pool.world import NAMES

Spoken = tuple[str, str, str]


def _to(place: str) -> str:
    """`aller à` with the article drawn together."""
    return f"à {place}".replace("à le ", "au ")


def _directions(rng: Random) -> Spoken:
    key = rng.choice([k for k in sorted(PLACES) if k != "train"])
    place, n = PLACES[key].fr, rng.randint(2, 25)
    text = rng.choice([f"Pardon, comment aller {_to(place)} ?", f"Je cherche {place}.",
                       f"C'est loin, {place} ?", f"Où se trouve {place} ?"])  # fmt: skip
    answer = rng.choice([
        f"Continuez tout droit, c'est à {n} minutes.", f"Prenez la deuxième rue à gauche. "
        f"Comptez {n} minutes à pied.", f"Traversez le pont, puis demandez ; il faut {n} minutes.",
    ])  # fmt: skip
    return text, answer, key


def _shopping(rng: Random) -> Spoken:
    key = rng.choice(sorted(THINGS))
    thing = rng.choice(THINGS[key])
    n, price = rng.randrange(9), rng.randint(2, 40)
    text = rng.choice([
        f"Bonjour, je voudrais {NUMBERS['fr'][n]} {thing.fr_many}.",
        f"Combien coûte {thing.fr_the} ?", f"Avez-vous encore {thing.fr_a} pour moi ?",
    ])  # fmt: skip
    if text.startswith("Combien"):
        answer = f"{capital(thing.fr_the)} coûte {price} euros."
    elif text.startswith("Bonjour"):
        answer = f"Très bien. Cela fait {(n + 2) * price} euros, soit {price} euros pièce."
    else:
        answer = rng.choice(["Oui, il en reste.", "Hélas non, tout est parti ce matin."])
    return text, answer, key


def _message(rng: Random) -> Spoken:
    key, day = rng.choice(sorted(PLACES)), rng.choice(DAYS["fr"])
    who, me = rng.sample(NAMES, 2)
    at = PLACES[key].fr_at
    text, body = rng.choice([
        (f"Écris un mot à {who} : je serai en retard {day}.",
         f"je serai un peu en retard {day}. Commencez sans moi !"),
        (f"Invite {who} {at}, {day} soir.", f"on se retrouve {at} {day} soir ? Je t'invite."),
        (f"Remercie {who} pour son aide {at}.", f"merci mille fois pour ton aide {at}."),
    ])  # fmt: skip
    return f"{text} Signe {me}.", f"Bonjour {who},\n{body}\nÀ bientôt,\n{me}", key


def _ideas(rng: Random) -> Spoken:
    key, season = rng.choice(sorted(PLACES)), rng.choice(["en été", "en hiver", "en automne"])
    at = PLACES[key].fr_at
    things = rng.sample([
        "un chapeau", "de l'eau", "un bon livre", "des chaussures solides", "un parapluie",
        "du pain et du fromage", "un jeu de cartes", "une écharpe", "un carnet", "de la patience",
    ], rng.randint(3, 5))  # fmt: skip
    text = rng.choice(
        [
            f"Que faut-il emporter pour une journée {at} {season} ?",
            f"Nous passons le dimanche {at}. Qu'est-ce que je mets dans mon sac ?",
        ]
    )
    return text, bullets(rng, things), key


FACTS = (
    ("Pourquoi la glace flotte-t-elle ?", "Parce que l'eau se dilate en gelant."),
    ("Pourquoi pleure-t-on en coupant un oignon ?", "Un gaz irrite les yeux."),
    ("Qui fait le miel ?", "Les abeilles, avec le nectar des fleurs."),
    ("Qu'est-ce qui cause les marées ?", "L'attraction de la Lune et du Soleil."),
    ("Comment la pâte lève-t-elle ?", "La levure produit un gaz qui reste dans la pâte."),
    ("Pourquoi le fer rouille-t-il ?", "Il réagit avec l'oxygène et l'eau."),
    ("Combien de pattes a une araignée ?", "Elle en a huit."),
    ("Pourquoi les feuilles rougissent-elles ?", "La chlorophylle disparaît en automne."),
)
LEADS = ("", "Dis-moi : ", "{a} demande : ", "Question pour un jeu {at} : ", "Au fait, ")


def _fact(rng: Random) -> Spoken:
    key = rng.choice(sorted(PLACES))
    question, answer = rng.choice(FACTS)
    lead = rng.choice(LEADS).format(a=rng.choice(NAMES), at=PLACES[key].fr_at)
    return lead + question, answer, key


KINDS: tuple[Callable[[Random], Spoken], ...] = (_directions, _shopping, _message, _ideas, _fact)
SYSTEMS = ("Réponds en français.", "Tu es aimable et bref.", "Tu travailles à l'accueil.")


def _template(make: Callable[[Random], Spoken]) -> Template:
    name = "french_chat/" + make.__name__.strip("_")

    def template(rng: Random) -> Draft:
        prompt, answer, group = make(rng)
        if rng.random() < 0.12:
            more, reply, _ = rng.choice(KINDS)(rng)
            return chat(name, [prompt, answer, more, reply], group=group, language="fr")
        system = sometimes(rng, 0.25, rng.choice(SYSTEMS))
        return ask(name, prompt, answer, system=system, group=group, language="fr")

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    "french_chat": tuple(_template(make) for make in KINDS)
}
