"""Questions about small tables, answered by a query; the tests run every query on SQLite."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, chat, sometimes
from benchmarks.demo_pool.world import TOWNS, Scene, names, scene


@dataclass(frozen=True, slots=True)
class Tables:
    """Two tables of a scene: people, and what they bought; column names vary."""

    people: str
    key: str
    name: str
    town: str
    sales: str
    item: str
    amount: str
    price: str
    day: str

    @property
    def statements(self) -> list[str]:
        """CREATE statements."""
        return [
            f"CREATE TABLE {self.people} ({self.key} INTEGER PRIMARY KEY, {self.name} TEXT, "
            f"{self.town} TEXT)",
            f"CREATE TABLE {self.sales} ({self.key} INTEGER, {self.item} TEXT, "
            f"{self.amount} INTEGER, {self.price} REAL, {self.day} TEXT)",
        ]

    def describe(self, rng: Random) -> str:
        """The two tables in words or as DDL."""
        people = f"{self.people}({self.key}, {self.name}, {self.town})"
        sales = f"{self.sales}({self.key}, {self.item}, {self.amount}, {self.price}, {self.day})"
        return rng.choice([
            ";\n".join(self.statements) + ";",
            f"Tables: {people}, {sales}.",
            f"We have {people} and {sales}; they share {self.key}.",
            f"-- {people}\n-- {sales}",
        ])  # fmt: skip


def tables(rng: Random, place: Scene) -> Tables:
    """Table and column names for a scene."""
    guest = place.guest.replace(" ", "_")
    return Tables(
        people=rng.choice([f"{guest}s", "people", "members", "clients"]),
        key=rng.choice(["id", f"{guest}_id", "person_id", "member_no"]),
        name=rng.choice(["name", "full_name", "first_name"]),
        town=rng.choice(["town", "city", "home_town"]),
        sales=rng.choice(["sales", "orders", "purchases", f"{place.key}_sales"]),
        item=rng.choice(["item", "article", "product"]),
        amount=rng.choice(["amount", "quantity", "pieces"]),
        price=rng.choice(["price", "unit_price", "cost"]),
        day=rng.choice(["day", "sold_on", "ordered_at"]),
    )


Query = tuple[str, str]
"""Question and query."""


def _filter(rng: Random, t: Tables, s: Scene) -> Query:
    town = rng.choice(TOWNS)
    return (
        f"Who lives in {town}? Alphabetical order, please.",
        f"SELECT {t.name} FROM {t.people} WHERE {t.town} = '{town}' ORDER BY {t.name}",
    )


def _total(rng: Random, t: Tables, s: Scene) -> Query:
    _, many, *_ = rng.choice(s.goods)
    item = many.replace("'", "")
    return (
        f"How much money did {many} bring in altogether?",
        f"SELECT SUM({t.amount} * {t.price}) FROM {t.sales} WHERE {t.item} = '{item}'",
    )


def _best(rng: Random, t: Tables, s: Scene) -> Query:
    n = rng.randint(3, 10)
    return (
        f"I need the {n} best-selling things by number of pieces.",
        f"SELECT {t.item}, SUM({t.amount}) AS total FROM {t.sales} GROUP BY {t.item} "
        f"ORDER BY total DESC LIMIT {n}",
    )


def _join(rng: Random, t: Tables, s: Scene) -> Query:
    _, many, *_ = rng.choice(s.goods)
    return (
        f"Which people have bought {many}, each of them once?",
        f"SELECT DISTINCT p.{t.name} FROM {t.people} AS p JOIN {t.sales} AS s "
        f"ON s.{t.key} = p.{t.key} WHERE s.{t.item} = '{many}'",
    )


def _having(rng: Random, t: Tables, s: Scene) -> Query:
    n = rng.randint(2, 20)
    return (
        f"From which places do more than {n} of our {s.guest}s come?",
        f"SELECT {t.town}, COUNT(*) AS n FROM {t.people} GROUP BY {t.town} HAVING COUNT(*) > {n}",
    )


def _never(rng: Random, t: Tables, s: Scene) -> Query:
    return (
        f"Find every {s.guest} who never bought anything.",
        f"SELECT p.{t.name} FROM {t.people} AS p LEFT JOIN {t.sales} AS s "
        f"ON s.{t.key} = p.{t.key} WHERE s.{t.key} IS NULL",
    )


def _month(rng: Random, t: Tables, s: Scene) -> Query:
    year = rng.randint(2019, 2025)
    return (
        f"Takings by month for {year}.",
        f"SELECT strftime('%m', {t.day}) AS month, SUM({t.amount} * {t.price}) AS takings "
        f"FROM {t.sales} WHERE strftime('%Y', {t.day}) = '{year}' GROUP BY month ORDER BY month",
    )


def _above_mean(rng: Random, t: Tables, s: Scene) -> Query:
    return (
        "What is dearer than the average? Show it with its price.",
        f"SELECT DISTINCT {t.item}, {t.price} FROM {t.sales} "
        f"WHERE {t.price} > (SELECT AVG({t.price}) FROM {t.sales})",
    )


def _update(rng: Random, t: Tables, s: Scene) -> Query:
    _, many, *_ = rng.choice(s.goods)
    percent = rng.choice([5, 10, 15, 20])
    return (
        f"All {many} get {percent} percent cheaper. Change the rows, please.",
        f"UPDATE {t.sales} SET {t.price} = {t.price} * {(100 - percent) / 100} "
        f"WHERE {t.item} = '{many}'",
    )


def _insert(rng: Random, t: Tables, s: Scene) -> Query:
    name, town, key = names(rng, 1)[0], rng.choice(TOWNS), rng.randint(100, 999)
    return (
        f"{name} from {town} has just joined with number {key}. Add that.",
        f"INSERT INTO {t.people} ({t.key}, {t.name}, {t.town}) VALUES ({key}, '{name}', '{town}')",
    )


def _delete(rng: Random, t: Tables, s: Scene) -> Query:
    year = rng.randint(2012, 2020)
    return (
        f"Anything from before {year} may go.",
        f"DELETE FROM {t.sales} WHERE {t.day} < '{year}-01-01'",
    )


def _per_person(rng: Random, t: Tables, s: Scene) -> Query:
    return (
        "For each person: number of visits and money spent, biggest spender on top.",
        f"SELECT p.{t.name}, COUNT(s.{t.item}) AS visits, "
        f"COALESCE(SUM(s.{t.amount} * s.{t.price}), 0) AS spent FROM {t.people} AS p "
        f"LEFT JOIN {t.sales} AS s ON s.{t.key} = p.{t.key} GROUP BY p.{t.key} ORDER BY spent DESC",
    )


QUERIES: tuple[Callable[[Random, Tables, Scene], Query], ...] = (
    _filter, _total, _best, _join, _having, _never, _month, _above_mean, _update, _insert,
    _delete, _per_person,
)  # fmt: skip
SYSTEMS = (
    "You turn questions into SQLite statements and say nothing else.",
    "Reply with one statement for the database.",
    "You are the data clerk of a small business.",
)
REMARKS = ("", "", "", "Adjust the names if yours differ.", "It reads each row once.",
           "An index on the key helps if it gets slow.", "Try it on a copy first.")  # fmt: skip


def laid_out(rng: Random, query: str) -> str:
    """The statement on one line or over several, fenced or bare, in one of two cases."""
    if rng.random() < 0.5:
        for word in (" FROM ", " LEFT JOIN ", " WHERE ", " GROUP BY ", " ORDER BY ", " VALUES "):
            query = query.replace(word, "\n" + word[1:])
    if rng.random() < 0.6:
        return f"```sql\n{query};\n```"
    return query + ";"


def _template(make: Callable[[Random, Tables, Scene], Query]) -> Template:
    name = "sql/" + make.__name__.strip("_")

    def template(rng: Random) -> Draft:
        place = scene(rng)
        t = tables(rng, place)
        question, query = make(rng, t, place)
        about = rng.choice([f"This is about {place.place}. ", "", f"Data kept {place.at}. "])
        parts = [about + question, t.describe(rng)]
        if rng.random() < 0.5:
            parts.reverse()
        remark = rng.choice(REMARKS)
        answer = laid_out(rng, query) + (f"\n\n{remark}" if remark else "")
        facts = {"statements": t.statements, "query": query}
        if rng.random() < 0.12:
            turns = [t.describe(rng), "Got it. What would you like to know?", question, answer]
            return chat(name, turns, group=place.key, facts=facts)
        system = sometimes(rng, 0.2, rng.choice(SYSTEMS))
        prompt = rng.choice(["\n", "\n\n"]).join(parts)
        return ask(name, prompt, answer, system=system, group=place.key, facts=facts)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {"sql": tuple(_template(make) for make in QUERIES)}
