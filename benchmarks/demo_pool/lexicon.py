"""Words in English, French and German that the translations are built from.

Noun phrases are written out with their articles, so that gender and case are right by hand.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A scene's place: definite noun phrase, and the phrase "at/in ..." in three languages."""

    en: str
    fr: str
    de: str
    en_at: str
    fr_at: str
    de_at: str


@dataclass(frozen=True, slots=True)
class Thing:
    """A good: indefinite, definite and plural; German in the accusative, definite in nominative."""

    en_a: str
    en_the: str
    en_many: str
    fr_a: str
    fr_the: str
    fr_many: str
    de_a: str
    de_the: str
    de_many: str


def _place(line: str) -> Place:
    return Place(*line.split("/"))


def _things(text: str) -> tuple[Thing, ...]:
    return tuple(Thing(*line.split("/")) for line in text.split("; "))


PLACES: dict[str, Place] = {
    "farm": _place("the farm/la ferme/der Bauernhof/at the farm/à la ferme/auf dem Bauernhof"),
    "bakery": _place("the bakery/la boulangerie/die Bäckerei/at the bakery/à la boulangerie/"
                     "in der Bäckerei"),
    "train": _place("the train/le train/der Zug/on the train/dans le train/im Zug"),
    "library": _place("the library/la bibliothèque/die Bibliothek/in the library/"
                      "à la bibliothèque/in der Bibliothek"),
    "school": _place("the school/l'école/die Schule/at the school/à l'école/in der Schule"),
    "garden": _place("the garden/le jardin/der Garten/in the garden/dans le jardin/im Garten"),
    "harbor": _place("the harbor/le port/der Hafen/at the harbor/au port/am Hafen"),
    "museum": _place("the museum/le musée/das Museum/in the museum/au musée/im Museum"),
    "clinic": _place("the clinic/la clinique/die Klinik/at the clinic/à la clinique/"
                     "in der Klinik"),
    "club": _place("the club/le club/der Verein/at the club/au club/im Verein"),
    "hotel": _place("the hotel/l'hôtel/das Hotel/at the hotel/à l'hôtel/im Hotel"),
    "market": _place("the market/le marché/der Markt/at the market/au marché/auf dem Markt"),
    "workshop": _place("the workshop/l'atelier/die Werkstatt/in the workshop/à l'atelier/"
                       "in der Werkstatt"),
    "theater": _place("the theater/le théâtre/das Theater/at the theater/au théâtre/im Theater"),
}  # fmt: skip

THINGS: dict[str, tuple[Thing, ...]] = {
    "farm": _things(
        "an apple/the apple/apples/une pomme/la pomme/pommes/einen Apfel/der Apfel/Äpfel; "
        "an egg/the egg/eggs/un œuf/l'œuf/œufs/ein Ei/das Ei/Eier; "
        "a pumpkin/the pumpkin/pumpkins/une citrouille/la citrouille/citrouilles/"
        "einen Kürbis/der Kürbis/Kürbisse"),
    "bakery": _things(
        "a roll/the roll/rolls/un petit pain/le petit pain/petits pains/ein Brötchen/"
        "das Brötchen/Brötchen; "
        "a cake/the cake/cakes/un gâteau/le gâteau/gâteaux/einen Kuchen/der Kuchen/Kuchen; "
        "a loaf/the loaf/loaves/une miche/la miche/miches/einen Laib/der Laib/Laibe"),
    "train": _things(
        "a ticket/the ticket/tickets/un billet/le billet/billets/eine Fahrkarte/die Fahrkarte/"
        "Fahrkarten; "
        "a newspaper/the newspaper/newspapers/un journal/le journal/journaux/eine Zeitung/"
        "die Zeitung/Zeitungen; "
        "a suitcase/the suitcase/suitcases/une valise/la valise/valises/einen Koffer/"
        "der Koffer/Koffer"),
    "library": _things(
        "a book/the book/books/un livre/le livre/livres/ein Buch/das Buch/Bücher; "
        "a map/the map/maps/une carte/la carte/cartes/eine Landkarte/die Landkarte/Landkarten; "
        "a magazine/the magazine/magazines/une revue/la revue/revues/eine Zeitschrift/"
        "die Zeitschrift/Zeitschriften"),
    "school": _things(
        "a pencil/the pencil/pencils/un crayon/le crayon/crayons/einen Bleistift/"
        "der Bleistift/Bleistifte; "
        "a notebook/the notebook/notebooks/un cahier/le cahier/cahiers/ein Heft/das Heft/Hefte; "
        "a chair/the chair/chairs/une chaise/la chaise/chaises/einen Stuhl/der Stuhl/Stühle"),
    "garden": _things(
        "a tulip/the tulip/tulips/une tulipe/la tulipe/tulipes/eine Tulpe/die Tulpe/Tulpen; "
        "a flowerpot/the flowerpot/flowerpots/un pot de fleurs/le pot de fleurs/"
        "pots de fleurs/einen Blumentopf/der Blumentopf/Blumentöpfe; "
        "a shovel/the shovel/shovels/une pelle/la pelle/pelles/eine Schaufel/die Schaufel/"
        "Schaufeln"),
    "harbor": _things(
        "a fish/the fish/fish/un poisson/le poisson/poissons/einen Fisch/der Fisch/Fische; "
        "a rope/the rope/ropes/une corde/la corde/cordes/ein Seil/das Seil/Seile; "
        "a net/the net/nets/un filet/le filet/filets/ein Netz/das Netz/Netze"),
    "museum": _things(
        "a postcard/the postcard/postcards/une carte postale/la carte postale/cartes postales/"
        "eine Postkarte/die Postkarte/Postkarten; "
        "a guidebook/the guidebook/guidebooks/un guide/le guide/guides/einen Führer/"
        "der Führer/Führer; "
        "a poster/the poster/posters/une affiche/l'affiche/affiches/ein Plakat/das Plakat/"
        "Plakate"),
    "clinic": _things(
        "a bandage/the bandage/bandages/un bandage/le bandage/bandages/einen Verband/"
        "der Verband/Verbände; "
        "a thermometer/the thermometer/thermometers/un thermomètre/le thermomètre/"
        "thermomètres/ein Thermometer/das Thermometer/Thermometer; "
        "a leash/the leash/leashes/une laisse/la laisse/laisses/eine Leine/die Leine/Leinen"),
    "club": _things(
        "a shirt/the shirt/shirts/un maillot/le maillot/maillots/ein Trikot/das Trikot/"
        "Trikots; "
        "a ball/the ball/balls/un ballon/le ballon/ballons/einen Ball/der Ball/Bälle; "
        "a bottle/the bottle/bottles/une bouteille/la bouteille/bouteilles/eine Flasche/"
        "die Flasche/Flaschen"),
    "hotel": _things(
        "a towel/the towel/towels/une serviette/la serviette/serviettes/ein Handtuch/"
        "das Handtuch/Handtücher; "
        "a pillow/the pillow/pillows/un oreiller/l'oreiller/oreillers/ein Kissen/das Kissen/"
        "Kissen; "
        "a key/the key/keys/une clé/la clé/clés/einen Schlüssel/der Schlüssel/Schlüssel"),
    "market": _things(
        "a melon/the melon/melons/un melon/le melon/melons/eine Melone/die Melone/Melonen; "
        "a candle/the candle/candles/une bougie/la bougie/bougies/eine Kerze/die Kerze/Kerzen; "
        "a basket/the basket/baskets/un panier/le panier/paniers/einen Korb/der Korb/Körbe"),
    "workshop": _things(
        "a bicycle/the bicycle/bicycles/un vélo/le vélo/vélos/ein Fahrrad/das Fahrrad/"
        "Fahrräder; "
        "a chain/the chain/chains/une chaîne/la chaîne/chaînes/eine Kette/die Kette/Ketten; "
        "a lamp/the lamp/lamps/une lampe/la lampe/lampes/eine Lampe/die Lampe/Lampen"),
    "theater": _things(
        "a ticket/the ticket/tickets/un billet/le billet/billets/eine Eintrittskarte/"
        "die Eintrittskarte/Eintrittskarten; "
        "a costume/the costume/costumes/un costume/le costume/costumes/ein Kostüm/"
        "das Kostüm/Kostüme; "
        "a program/the program/programs/un programme/le programme/programmes/"
        "ein Programmheft/das Programmheft/Programmhefte"),
}  # fmt: skip

NUMBERS = {
    "en": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
           "twelve"),
    "fr": ("deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze",
           "douze"),
    "de": ("zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf",
           "zwölf"),
}  # fmt: skip
DAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "fr": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
}
