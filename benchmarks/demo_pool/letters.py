"""Emails and short letters, put together from hand-written parts."""

from dataclasses import dataclass
from random import Random

from benchmarks.demo_pool.rows import Draft, Template, ask, chat, sometimes
from benchmarks.demo_pool.world import DAYS, clock, names, scene


@dataclass(frozen=True, slots=True)
class Occasion:
    """Why somebody writes: requests for the letter, subject, and its middle in variants."""

    key: str
    wishes: tuple[str, ...]
    subject: str
    firsts: tuple[str, ...]
    seconds: tuple[str, ...]
    thirds: tuple[str, ...]


OCCASIONS = (
    Occasion("apology",
             ("Apologize to {a} because the {many} are late.", "The {many} for {a} did not come "
              "in time. Find kind words."),
             "Your order of {many}",
             ("I am sorry that your {many} have not arrived yet.",
              "your {many} should have been with you by {day}, and they are not."),
             ("A driver is ill and we were slow to find another one.",
              "Our {worker} counted wrongly, which is entirely our fault."),
             ("They will be with you on {day}, and you pay only half.",
              "You will have them by {day} at the latest; the delivery is on us.")),
    Occasion("complaint",
             ("Complain politely about the {many} that were broken.",
              "The {worker} sold me useless {many}. I want to write, firmly but without insults."),
             "Broken {many}",
             ("on {day} I bought {n} {many} {at}.", "last week your {worker} sold me {n} {many}."),
             ("Half of them were broken when I unpacked them at home.",
              "None of them is in a state in which one could use it."),
             ("Please replace them or return the money by {day}.",
              "I trust that you will put this right within the week.")),
    Occasion("invitation",
             ("Invite {a} to a small feast {at} on {day}.", "We celebrate {at}. A warm note to "
              "{a}, please."),
             "Come and celebrate with us",
             ("on {day} at {time} we open the doors {at} for friends only.",
              "{place} is fifty years old, and we do not want to be alone with the cake."),
             ("There will be soup, music, and {many} for everybody.",
              "{b} promises to sing, unless somebody stops it."),
             ("Bring whom you like, and tell us by {time} the day before.",
              "A short answer helps us to count the chairs.")),
    Occasion("booking",
             ("Ask for a table or room {at} for {n} people.",
              "I need a reservation {at} on {day}, {time}."),
             "Reservation for {day}",
             ("we are {n} people and would like to come on {day} at {time}.",
              "do you have room {at} for {n} of us on {day}?"),
             ("One of us uses a wheelchair, so a place near the entrance would help.",
              "Two of us are children and would be happy with any corner."),
             ("Please let me know the price and until when I may cancel.",
              "A line in reply is enough; I will then confirm by phone.")),
    Occasion("thanks",
             ("Thank {a} for the help {at}.", "{a} was kind to me {at}. Write a note of thanks."),
             "Thank you",
             ("what you did for us {at} on {day} was more than we could ask for.",
              "I have been thinking of your help {at} ever since."),
             ("Without you the {many} would still lie in the rain.",
              "The children keep telling everyone about it."),
             ("Should you ever need two hands, mine are free.",
              "A box of {many} is on its way to you.")),
    Occasion("offer",
             ("Request a quote for {n} {many}.", "What would {n} {many} cost? Write to the "
              "{worker}."),
             "Price for {n} {many}",
             ("for a feast we need {n} {many} by {day}.",
              "I am writing on behalf of a club that looks for {n} {many}."),
             ("They need not be new, as long as they are clean.",
              "We can collect them ourselves if that lowers the price."),
             ("Could you send me an offer by {day}?",
              "Please state the price with and without delivery.")),
    Occasion("cancel",
             ("Call off the visit {at} on {day}.", "{a} expects us {at}, but we cannot come."),
             "We cannot come on {day}",
             ("to my regret we have to call off our visit {at}.",
              "we were looking forward to {day}, but it will not work."),
             ("Half of the family is in bed with a fever.",
              "The road is closed and nobody knows for how long."),
             ("May we come a week later instead?", "Please give our place to someone else.")),
    Occasion("application",
             ("Apply for a job as helper of the {worker}.",
              "Short cover letter, summer job {at}."),
             "Summer job {at}",
             ("I would like to work {at} from {month} on.",
              "your notice says that the {worker} needs another pair of hands."),
             ("For {n} months I have looked after {many} in another town.",
              "I am early, strong, and not afraid of counting {many}."),
             ("I could come on {day} to introduce myself.",
              "{b}, for whom I worked before, will gladly tell you more.")),
    Occasion("lost",
             ("Ask whether my bag was found {at}.", "I must have left a bag {at} on {day}. Write "
              "to them."),
             "A lost bag",
             ("on {day} around {time} I left a blue bag {at}.",
              "I think that I forgot a bag when I was {at} on {day}."),
             ("There are {n} {many} in it and a letter that matters to me.",
              "It has a red ribbon on the handle."),
             ("I would be grateful for a call, and happy to pay a reward.",
              "If it turns up, please keep it for me until the weekend.")),
    Occasion("notice",
             ("Tell the neighbors that there will be noise {at}.",
              "A note to all: {place} is closed on {day} for repairs."),
             "Repairs on {day}",
             ("on {day} there will be work on the roof {at}.",
              "{place} has to close on {day}, since the pipes are being changed."),
             ("From {time} on it will be loud, and for an hour there is no water.",
              "You can still get {many} at the side door."),
             ("We apologize and thank you for your patience.",
              "If that is a problem for you, please call {b}.")),
)  # fmt: skip
LEADS = ("", "", "Email: ", "Please draft this for me. ", "I am bad with words. ",
"Letter wanted: ",
         "Can you help me write? ")  # fmt: skip
CLOSES = ("Kind regards\n{me}", "Best wishes\n{me}", "Yours sincerely\n{me}", "Warmly\n{me}")
SYSTEMS = ("You write for people who find it hard.", "Polite, short, plain.",
           "You are the secretary of a small business.")  # fmt: skip


def _draft(rng: Random, occasion: Occasion) -> Draft:
    place = scene(rng)
    a, b, me = names(rng, 3)
    words = {
        "a": a, "b": b, "many": rng.choice(place.goods)[1], "at": place.at, "place": place.place,
        "worker": place.worker, "n": rng.randint(3, 40), "day": rng.choice(DAYS),
        "time": clock(rng, 9, 19), "month": rng.choice(["May", "June", "July"]),
    }  # fmt: skip

    def fill(texts: tuple[str, ...]) -> str:
        return rng.choice(texts).format(**words)

    wish = rng.choice(LEADS) + fill(occasion.wishes)
    body = [fill(part) for part in (occasion.firsts, occasion.seconds, occasion.thirds)]
    greeting = rng.choice([f"Dear {a},", f"Hello {a},", f"Good morning {a},"])
    first = body[0] if rng.random() < 0.5 else body[0][0].upper() + body[0][1:]
    gap = rng.choice(["\n", "\n\n"])
    close = rng.choice(CLOSES).format(me=me)
    letter = gap.join([greeting, f"{first} {body[1]}", body[2], close])
    if rng.random() < 0.5:
        letter = f"Subject: {occasion.subject.format(**words)}\n\n{letter}"
    name = f"emails/{occasion.key}"
    wish += f" Sign as {me}." if rng.random() < 0.4 else ""
    if rng.random() < 0.12:
        short = f"{greeting}{gap}{first} {body[2]}{gap}{me}"
        return chat(name, [wish, letter, "Shorter, please.", short], group=place.key)
    return ask(name, wish, letter, system=sometimes(rng, 0.2, rng.choice(SYSTEMS)), group=place.key)


def _template(occasion: Occasion) -> Template:
    def template(rng: Random) -> Draft:
        return _draft(rng, occasion)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {"emails": tuple(_template(o) for o in OCCASIONS)}
