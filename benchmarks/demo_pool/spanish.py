"""Everyday conversations in Spanish, and sums and opinions in the same language."""

from collections.abc import Callable
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, bullets, chat, sometimes
from benchmarks.demo_pool.world import NAMES

# key: the place with article, "in/at" phrase, two goods in the plural.
PLACES: dict[str, tuple[str, str, str, str]] = {
    "farm": ("la granja", "en la granja", "manzanas", "calabazas"),
    "bakery": ("la panadería", "en la panadería", "tortas", "barras de pan"),
    "train": ("el tren", "en el tren", "maletas", "revistas"),
    "library": ("la biblioteca", "en la biblioteca", "novelas", "láminas"),
    "school": ("la escuela", "en la escuela", "sillas", "reglas"),
    "garden": ("el jardín", "en el jardín", "rosas", "macetas"),
    "harbor": ("el puerto", "en el puerto", "redes", "cuerdas"),
    "museum": ("el museo", "en el museo", "postales", "entradas"),
    "clinic": ("la clínica", "en la clínica", "vendas", "correas"),
    "club": ("el club", "en el club", "camisetas", "bufandas"),
    "hotel": ("el hotel", "en el hotel", "toallas", "mantas"),
    "market": ("el mercado", "en el mercado", "velas", "cestas"),
    "workshop": ("el taller", "en el taller", "bicicletas", "cadenas"),
    "theater": ("el teatro", "en el teatro", "pelucas", "entradas"),
}
DAYS = ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo")
Spoken = tuple[str, str, str]


def _place(rng: Random) -> tuple[str, str, str, str, str]:
    key = rng.choice(sorted(PLACES))
    return (key, *PLACES[key])


def _sum(rng: Random) -> Spoken:
    key, _, at, many, _ = _place(rng)
    a, b, c = rng.randint(12, 60), rng.randint(5, 30), rng.randint(2, 9)
    who = rng.choice(NAMES)
    text = f"{who} tiene {a} {many} {at}, recibe {b} más y regala {c}. ¿Cuántas le quedan?"
    return text, f"{a} + {b} = {a + b}; {a + b} - {c} = {a + b - c}. Le quedan {a + b - c}.", key


def _product(rng: Random) -> Spoken:
    key, _, at, many, others = _place(rng)
    n, p = rng.randint(3, 12), rng.randint(2, 15)
    text = rng.choice([
        f"Compré {n} {many} a {p} euros cada una. ¿Cuánto pagué?",
        f"Si una de las {many} cuesta {p} euros {at}, ¿cuánto cuestan {n}?",
        f"Hay {n} cajas con {p} {others} cada una. ¿Cuántas {others} son?",
    ])  # fmt: skip
    unit = others if "cajas" in text else "euros"
    return text, f"{n} * {p} = {n * p}. Son {n * p} {unit}.", key


def _directions(rng: Random) -> Spoken:
    key, place, *_ = _place(rng)
    other = PLACES[rng.choice([k for k in sorted(PLACES) if k not in (key, "train")])][0]
    text = rng.choice([f"Perdone, ¿cómo llego a {place}?".replace("a el ", "al "),
                       f"¿Está lejos {place}?", f"Busco {place}."])  # fmt: skip
    minutes = rng.randint(3, 25)
    answer = rng.choice([
        f"Siga todo recto hasta {other}; está a {minutes} minutos a pie.",
        f"Gire a la izquierda después de {other}. Tarda unos {minutes} minutos.".replace(
            "de el ", "del "),
        f"No está lejos: {minutes} minutos, cruzando el puente.",
    ])  # fmt: skip
    return text, answer, key


def _opinion(rng: Random) -> Spoken:
    key, place, at, many, _ = _place(rng)
    good = rng.random() < 0.5
    text = rng.choice([
        f"Me encantó {place}. Volveré pronto.", f"Las {many} son estupendas y la gente, amable.",
        f"Una tarde perfecta {at}; no cambiaría nada.",
    ] if good else [
        f"No vuelvo a {place} nunca más.".replace("a el ", "al "),
        f"Las {many} estaban rotas y nadie se disculpó.",
        f"Qué decepción: esperamos dos horas {at}.",
    ])  # fmt: skip
    question = rng.choice(["¿Es positivo o negativo?", "¿Le gustó o no?", "Opinión:", "¿Qué tono "
                           "tiene?"])  # fmt: skip
    parts = [question, text]
    rng.shuffle(parts)
    return " ".join(parts), "positivo" if good else "negativo", key


def _note(rng: Random) -> Spoken:
    key, _, at, many, _ = _place(rng)
    who, me, day = *rng.sample(NAMES, 2), rng.choice(DAYS)
    text = rng.choice([
        f"Escribe una nota a {who}: no puedo ir el {day} {at}.",
        f"Un mensaje corto para {who}: gracias por las {many}.",
        f"Invita a {who} a tomar café {at} el {day}.",
    ])  # fmt: skip
    body = (
        f"lo siento mucho, pero el {day} no puedo ir. ¿Nos vemos otro día {at}?"
        if "no puedo" in text
        else f"muchísimas gracias por las {many}. Me han alegrado el día."
        if "gracias" in text
        else f"¿te apetece tomar un café {at} el {day}? Invito yo."
    )
    return f"{text} Firma {me}.", f"Hola, {who}:\n{body}\nUn abrazo,\n{me}", key


def _list(rng: Random) -> Spoken:
    key, place, at, many, _ = _place(rng)
    things = rng.sample([
        "agua", "un paraguas", "un mapa", "zapatos cómodos", "algo de dinero", "una chaqueta",
        f"espacio para las {many}", "pan y queso", "crema para el sol", "buen humor",
    ], rng.randint(3, 5))  # fmt: skip
    text = rng.choice([
        f"¿Qué llevo si paso el día {at}?", f"Lista de cosas para ir a {place}.",
        f"Vamos a {place} con niños. ¿Qué metemos en la mochila?",
    ])  # fmt: skip
    return text.replace(" a el ", " al "), bullets(rng, things), key


FACTS = (
    ("¿Por qué flota el hielo?", "Porque el agua se dilata al congelarse y pesa menos."),
    ("¿De dónde sale la miel?", "Las abejas la hacen con el néctar de las flores."),
    ("¿Por qué sube la masa del pan?", "La levadura produce gas, que queda atrapado en la masa."),
    ("¿Qué causa las mareas?", "La atracción de la Luna y, en menor medida, del Sol."),
    ("¿Por qué se oxida una cadena?", "El hierro reacciona con el oxígeno y el agua."),
    ("¿Cuántas patas tiene una araña?", "Tiene ocho patas."),
    ("¿Por qué llora uno al cortar cebolla?", "Un gas de la cebolla irrita los ojos."),
    ("¿Qué es un eco?", "Es el sonido que vuelve tras chocar con una superficie."),
)
LEADS = ("", "Una pregunta: ", "{a} pregunta: ", "Oye, ", "Para un concurso {at}: ", "Dime: ")


def _fact(rng: Random) -> Spoken:
    key, _, at, *_ = _place(rng)
    question, answer = rng.choice(FACTS)
    return rng.choice(LEADS).format(a=rng.choice(NAMES), at=at) + question, answer, key


KINDS: dict[str, tuple[Callable[[Random], Spoken], ...]] = {
    "word_problems": (_sum, _product),
    "sentiment": (_opinion,),
    "spanish": (_directions, _note, _list, _fact),
}
SYSTEMS = ("Responde siempre en español.", "Eres amable y breve.", "Ayudas a los visitantes.")


def _template(family: str, make: Callable[[Random], Spoken]) -> Template:
    name = f"{family}/spanish_{make.__name__.strip('_')}"

    def template(rng: Random) -> Draft:
        prompt, answer, group = make(rng)
        if rng.random() < 0.12:
            more, reply, _ = make(rng)
            return chat(name, [prompt, answer, more, reply], group=group, language="es")
        system = sometimes(rng, 0.25, rng.choice(SYSTEMS))
        return ask(name, prompt, answer, system=system, group=group, language="es")

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {
    family: tuple(_template(family, make) for make in makers) for family, makers in KINDS.items()
}
"""Sums and opinions belong to the families of their task, whatever their language."""
