"""Python: functions, classes and repairs; every code block runs and passes its check."""

from random import Random

from benchmarks.demo_pool.python_tasks import JOBS, Job
from benchmarks.demo_pool.rows import Draft, Template, ask, chat, sometimes
from benchmarks.demo_pool.world import scene

OPENERS = ("", "", "", "Python: ", "Please write this: ", "In Python, ",
"For our little tool {at}: ",
           "My script needs this. ", "Coding question. ")  # fmt: skip
SYSTEMS = (
    "You are a programmer. Code first, then at most one remark.",
    "Answer with Python 3 code.",
    "You help beginners with their scripts.",
    "Only code, no talk.",
)
LEADS = ("", "", "Here it is:", "Like this:", "One way:", "This should do:", "Try this.")


def _filled(text: str, marks: dict[str, str]) -> str:
    for mark, value in marks.items():
        text = text.replace(f"<{mark}>", value)
    return text


def _documented(rng: Random, code: str) -> str:
    """The code, sometimes with a type comment line or four blanks turned into two."""
    return code.replace("    ", "  ") if rng.random() < 0.2 else code


def _answer(rng: Random, job: Job, code: str, check: str, terse: bool) -> str:
    block = f"```python\n{code}\n```" if rng.random() < 0.75 else code
    if terse:
        return block
    lead, parts = rng.choice(LEADS), [block]
    if lead:
        parts.insert(0, lead)
    if rng.random() < 0.5:
        parts.append(job.remark)
    elif " == " in check and "lambda" not in check and " and " not in check and "\n" not in check:
        call, _, value = check.partition(" == ")
        parts.append(f"Example: `{call}` gives `{value}`.")
    return "\n\n".join(parts) if "```" in block else "\n".join([parts[0] if lead else "", code])


def _draft(rng: Random, job: Job) -> Draft:
    name, place = f"python_code/{job.key}", scene(rng)
    _, many, *_ = rng.choice(place.goods)
    marks = {"f": rng.choice(job.names), "many": many, "guest": place.guest, "box": place.box[0]}
    code = _documented(rng, _filled(job.code, marks))
    check = _filled(job.check, marks)
    wording = _filled(rng.choice(job.wordings), marks)
    opener = rng.choice(OPENERS).format(at=place.at)
    if opener == "In Python, ":
        wording = wording[0].lower() + wording[1:]
    prompt = opener + wording
    if not job.key.startswith("bug") and rng.random() < 0.35:
        prompt += f" Call it `{marks['f']}`."
    facts = {"code": code, "check": check}
    system = sometimes(rng, 0.2, rng.choice(SYSTEMS))
    answer = _answer(rng, job, code, check, terse=system in (SYSTEMS[1], SYSTEMS[3])).strip()
    if rng.random() < 0.12:
        more = rng.choice(["Anything I should know?", "Is there a catch?", "Thanks, any remark?"])
        turns = [prompt, f"```python\n{code}\n```", more, job.remark]
        return chat(name, turns, system=system, group=place.key, facts=facts)
    return ask(name, prompt, answer, system=system, group=place.key, facts=facts)


def _template(job: Job) -> Template:
    def template(rng: Random) -> Draft:
        return _draft(rng, job)

    return template


TEMPLATES: dict[str, tuple[Template, ...]] = {"python_code": tuple(_template(j) for j in JOBS)}
