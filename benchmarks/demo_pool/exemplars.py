"""Exemplars of the demo's targets, written by hand; no wording or template of the pool is in them.

The name of a target is the family in the pool that it looks for.
"""

from benchmarks.demo_pool.exemplars_text import SENTIMENT, SUMMARIES, WORD_PROBLEMS
from benchmarks.demo_pool.rows import turn

SQL = (
    ("Schema: loans(loan_no, borrower, title, due, returned). List titles that are overdue as of "
     "2024-03-01 and not back yet.",
     "SELECT title FROM loans WHERE due < '2024-03-01' AND returned IS NULL;"),
    ("flights(code, origin, destination, minutes) -- longest connection leaving from Oslo?",
     "SELECT code, destination, minutes\nFROM flights\nWHERE origin = 'Oslo'\n"
     "ORDER BY minutes DESC\nLIMIT 1;"),
    ("CREATE TABLE stars (star TEXT, distance REAL, magnitude REAL);\nCount the ones brighter than "
     "magnitude 2 within 50 light years.",
     "```sql\nSELECT COUNT(*)\nFROM stars\nWHERE magnitude < 2 AND distance <= 50;\n```"),
    ("Given employees(emp, boss, salary), who earns more than his or her own boss?",
     "SELECT e.emp FROM employees e JOIN employees b ON e.boss = b.emp WHERE e.salary > b.salary;"),
    ("Give me the mean rating per genre from films(title, genre, rating), but only genres with at "
     "least five films.",
     "SELECT genre, AVG(rating) AS mean_rating\nFROM films\nGROUP BY genre\n"
     "HAVING COUNT(*) >= 5;"),
    ("Table patients(pid, born, ward). Move everybody in ward 3 to ward 5.",
     "UPDATE patients SET ward = 5 WHERE ward = 3;"),
    ("rivers(river, country, km) and countries(country, area). Total river length per square "
     "kilometer, by country.",
     "```sql\nSELECT c.country, SUM(r.km) / c.area AS density\nFROM countries AS c\n"
     "JOIN rivers AS r USING (country)\nGROUP BY c.country, c.area;\n```"),
    ("How would I fetch the second highest salary from payroll(worker, salary)?",
     "SELECT MAX(salary) FROM payroll WHERE salary < (SELECT MAX(salary) FROM payroll);"),
)  # fmt: skip
FRENCH = (
    ("Say it in French: The moon is brighter tonight than last night.",
     "La lune est plus brillante ce soir qu'hier soir."),
    ("Give the French for the sentence below.\n\nMy grandfather never learned to swim.",
     "Mon grand-père n'a jamais appris à nager."),
    ("French translation wanted: \"If you are hungry, there is soup on the stove.\"",
     "Si tu as faim, il y a de la soupe sur la cuisinière."),
    ("Could you turn the next line into French? The doctor advised her to drink more water.",
     "Le médecin lui a conseillé de boire plus d'eau."),
    ("We shall leave as soon as the snow has melted. -> French",
     "Nous partirons dès que la neige aura fondu."),
    ("Write this for my aunt in Lyon, who speaks no English: Happy birthday! The present is on its "
     "way.",
     "Joyeux anniversaire ! Le cadeau est en route."),
    ("How does one express \"It is worth a try\" in French?", "Ça vaut la peine d'essayer."),
    ("Into French, formal style: We regret that your request arrived after the deadline.",
     "Nous regrettons que votre demande soit arrivée après la date limite."),
)  # fmt: skip
PYTHON = (
    ("Function wanted: `is_leap(year)` for the Gregorian calendar.",
     "```python\ndef is_leap(year):\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 "
     "== "
     "0)\n```"),
    ("Flatten a nested list of any depth, please, without recursion limits for normal input.",
     "```python\ndef flatten(items):\n    flat = []\n    for item in items:\n"
     "        if isinstance(item, list):\n            flat.extend(flatten(item))\n"
     "        else:\n            flat.append(item)\n    return flat\n```"),
    ("How do I merge two dictionaries so that values of equal keys are added?",
     "def merged(a, b):\n    return {key: a.get(key, 0) + b.get(key, 0) for key in a.keys() | b}"),
    ("My loop prints 0 to 9 but I want 1 to 10:\nfor i in range(10): print(i)",
     "The end of a range is excluded, so shift both ends:\n```python\nfor i in range(1, 11):\n"
     "    print(i)\n```"),
    ("Implement a stack class with push, pop and a method for its size.",
     "```python\nclass Stack:\n    def __init__(self):\n        self._items = []\n\n"
     "    def push(self, item):\n        self._items.append(item)\n\n    def pop(self):\n"
     "        return self._items.pop()\n\n    def size(self):\n        return "
     "len(self._items)\n```"),
    ("Binary search over a sorted list; return -1 if the value is absent.",
     "def find(values, wanted):\n    low, high = 0, len(values) - 1\n    while low <= high:\n"
     "        middle = (low + high) // 2\n        if values[middle] == wanted:\n"
     "            return middle\n        if values[middle] < wanted:\n"
     "            low = middle + 1\n        else:\n            high = middle - 1\n    return -1"),
    ("One-liner to transpose a matrix given as list of rows?",
     "`[list(column) for column in zip(*rows)]`"),
    ("Code a generator of the Fibonacci numbers.",
     "```python\ndef fibonacci():\n    a, b = 0, 1\n    while True:\n        yield a\n"
     "        a, b = b, a + b\n```"),
)  # fmt: skip

TARGETS: dict[str, tuple[tuple[str, str], ...]] = {
    "word_problems": WORD_PROBLEMS,
    "sql": SQL,
    "sentiment": SENTIMENT,
    "french_translation": FRENCH,
    "python_code": PYTHON,
    "summaries": SUMMARIES,
}


def target_lines() -> list[dict[str, object]]:
    """One line per target, in the form of a targets file."""
    return [
        {
            "target": target,
            "exemplars": [
                {
                    "id": f"{target}-{number}",
                    "messages": [turn("user", prompt), turn("assistant", answer)],
                }
                for number, (prompt, answer) in enumerate(pairs, 1)
            ],
        }
        for target, pairs in TARGETS.items()
    ]
