"""Small Python jobs: wordings, code and a check that the tests execute.

`<f>` is the function's name, `<many>` goods, `<guest>` a person, `<box>` a container; `{{` needs no
escaping because the marks are replaced, not formatted.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `check` is an expression that is true once the code has run."""

    key: str
    wordings: tuple[str, ...]
    names: tuple[str, ...]
    code: str
    check: str
    remark: str


JOBS: tuple[Job, ...] = (
    Job("tally", ("Count how often each of the <many> occurs in a list.",
                  "I have a list of <many> with repeats and want a dict of counts."),
        ("tally", "count_items", "frequencies"),
        "def <f>(items):\n    counts = {}\n    for item in items:\n"
        "        counts[item] = counts.get(item, 0) + 1\n    return counts",
        "<f>(['a', 'b', 'a']) == {'a': 2, 'b': 1}", "`collections.Counter` does the same."),
    Job("cheapest", ("Which of the <many> is cheapest? The input is a dict from name to price.",
                     "Given {name: price}, return the name with the lowest price."),
        ("cheapest", "lowest_price", "best_offer"),
        "def <f>(prices):\n    return min(prices, key=prices.get)",
        "<f>({'x': 3, 'y': 1}) == 'y'", "An empty dict raises ValueError."),
    Job("total", ("Sum price times amount over rows such as ('<many>', 3, 2.5).",
                  "Takings of the day from a list of (name, amount, price) tuples."),
        ("takings", "total", "revenue"),
        "def <f>(rows):\n    return sum(amount * price for _, amount, price in rows)",
        "<f>([('a', 2, 1.5), ('b', 1, 4.0)]) == 7.0", "The name is ignored."),
    Job("chunks", ("Split a list of <many> into a <box> of n each; the last one may be smaller.",
                   "Cut a list into pieces of length n."),
        ("chunks", "pack", "in_groups"),
        "def <f>(items, n):\n    return [items[i : i + n] for i in range(0, len(items), n)]",
        "<f>([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]", "n must be positive."),
    Job("unique", ("Remove repeats from a list but keep the order in which things first came.",
                   "Every <guest> shall appear once, first come first."),
        ("unique", "without_repeats", "first_only"),
        "def <f>(items):\n    seen = set()\n    result = []\n    for item in items:\n"
        "        if item not in seen:\n            seen.add(item)\n            "
        "result.append(item)\n"
        "    return result",
        "<f>([3, 1, 3, 2, 1]) == [3, 1, 2]", "Items must be hashable."),
    Job("palindrome", ("Does a word read the same backwards? Ignore case and spaces.",
                       "Test a phrase for being a palindrome."),
        ("is_palindrome", "reads_both_ways"),
        "def <f>(text):\n    letters = [c.lower() for c in text if c.isalpha()]\n"
        "    return letters == letters[::-1]",
        "<f>('Never odd or even') and not <f>('apple')", "Punctuation is skipped as well."),
    Job("primes", ("All primes up to n, with a sieve.", "List the prime numbers below or equal n."),
        ("primes", "sieve", "primes_up_to"),
        "def <f>(n):\n    flags = [True] * (n + 1)\n    flags[:2] = [False] * len(flags[:2])\n"
        "    for i in range(2, int(n**0.5) + 1):\n        if flags[i]:\n"
        "            for j in range(i * i, n + 1, i):\n                flags[j] = False\n"
        "    return [i for i, flag in enumerate(flags) if flag]",
        "<f>(20) == [2, 3, 5, 7, 11, 13, 17, 19]", "Time grows a little faster than n."),
    Job("gcd", ("Greatest common divisor without the math module.",
                "Euclid's algorithm as a function."),
        ("gcd", "common_divisor"),
        "def <f>(a, b):\n    while b:\n        a, b = b, a % b\n    return abs(a)",
        "<f>(48, 36) == 12", "The loop ends because the remainder shrinks."),
    Job("vowels", ("How many vowels does a text have?", "Count a, e, i, o and u in a string."),
        ("vowels", "count_vowels"),
        "def <f>(text):\n    return sum(c in 'aeiou' for c in text.lower())",
        "<f>('Bakery Oven') == 4", "y does not count here."),
    Job("average", ("Mean of a list of numbers, None if it is empty.",
                    "Average number of <many> per day, and no crash without days."),
        ("mean", "average"),
        "def <f>(values):\n    if not values:\n        return None\n"
        "    return sum(values) / len(values)",
        "<f>([2, 4]) == 3 and <f>([]) is None", "For large data use `statistics.fmean`."),
    Job("median", ("Median of a list, without libraries.", "Middle value of the prices of <many>."),
        ("median", "middle"),
        "def <f>(values):\n    ordered = sorted(values)\n    half = len(ordered) // 2\n"
        "    if len(ordered) % 2:\n        return ordered[half]\n"
        "    return (ordered[half - 1] + ordered[half]) / 2",
        "<f>([5, 1, 3]) == 3 and <f>([4, 1, 3, 2]) == 2.5", "The input stays unsorted."),
    Job("caesar", ("Shift every letter by k places in the alphabet and leave the rest alone.",
                   "A Caesar cipher for notes between a <guest> and a friend."),
        ("shift", "caesar", "encode"),
        "def <f>(text, k):\n    result = ''\n    for c in text:\n        if c.isalpha():\n"
        "            base = ord('a') if c.islower() else ord('A')\n"
        "            c = chr((ord(c) - base + k) % 26 + base)\n        result += c\n"
        "    return result",
        "<f>('Abz!', 1) == 'Bca!'", "Shift by -k to get the text back."),
    Job("csv", ("Read a CSV text with a header into a list of dicts; no quotes occur.",
                "Parse lines like name,price for <many> into dictionaries."),
        ("parse", "read_rows", "records"),
        "def <f>(text):\n    header, *lines = text.strip().splitlines()\n"
        "    keys = header.split(',')\n"
        "    return [dict(zip(keys, line.split(','))) for line in lines]",
        "<f>('a,b\\n1,2') == [{'a': '1', 'b': '2'}]", "With quotes, use the csv module."),
    Job("group", ("Group words by their first letter.", "Sort <many> into drawers by initial."),
        ("by_initial", "drawers", "grouped"),
        "from collections import defaultdict\n\n\ndef <f>(words):\n    groups = defaultdict(list)\n"
        "    for word in words:\n        groups[word[0]].append(word)\n    return dict(groups)",
        "<f>(['net', 'rope', 'nut']) == {'n': ['net', 'nut'], 'r': ['rope']}",
        "Empty words would raise IndexError."),
    Job("queue", ("Write a class for people waiting in line: join, serve, length.",
                  "A queue in which the first <guest> is served first."),
        ("Queue", "Line", "WaitingLine"),
        "from collections import deque\n\n\nclass <f>:\n    def __init__(self):\n"
        "        self._people = deque()\n\n    def join(self, person):\n"
        "        self._people.append(person)\n\n    def serve(self):\n"
        "        return self._people.popleft()\n\n    def __len__(self):\n"
        "        return len(self._people)",
        "(lambda q: (q.join('a'), q.join('b'), q.serve(), len(q)))(<f>()) == (None, None, 'a', 1)",
        "A deque removes from the left in constant time."),
    Job("stock", ("Keep a stock of <many>: add, take (never below zero), and ask what is there.",
                  "Class for an inventory that refuses to go negative."),
        ("Stock", "Inventory", "Store"),
        "class <f>:\n    def __init__(self):\n        self._amounts = {}\n\n"
        "    def add(self, item, n):\n        self._amounts[item] = self.amount(item) + n\n\n"
        "    def take(self, item, n):\n        if n > self.amount(item):\n"
        "            raise ValueError('not enough in stock')\n"
        "        self._amounts[item] -= n\n\n    def amount(self, item):\n"
        "        return self._amounts.get(item, 0)",
        "(lambda s: (s.add('a', 3), s.take('a', 1), s.amount('a')))(<f>())[2] == 2",
        "Taking too much raises ValueError."),
    Job("merge", ("Two sorted lists into one sorted list, in linear time.",
                  "Merge step of merge sort, please."),
        ("merge", "merged", "zip_sorted"),
        "def <f>(a, b):\n    result, i, j = [], 0, 0\n    while i < len(a) and j < len(b):\n"
        "        if a[i] <= b[j]:\n            result.append(a[i])\n            i += 1\n"
        "        else:\n            result.append(b[j])\n            j += 1\n"
        "    return result + a[i:] + b[j:]",
        "<f>([1, 4], [2, 3, 5]) == [1, 2, 3, 4, 5]", "Equal items keep their order."),
    Job("factorial", ("n! with a loop.", "Product of 1 to n, and an error below zero."),
        ("factorial", "product_to"),
        "def <f>(n):\n    if n < 0:\n        raise ValueError('n must not be negative')\n"
        "    result = 1\n    for i in range(2, n + 1):\n        result *= i\n    return result",
        "<f>(5) == 120 and <f>(0) == 1", "Python's integers do not overflow."),
    Job("bug_default", ("Why does this keep <many> from earlier calls?\n\n"
                        "def add(item, basket=[]):\n    basket.append(item)\n    return basket",
                        "A second call of this returns two things. What is wrong?\n\n"
                        "def add(item, basket=[]):\n    basket.append(item)\n    return basket"),
        ("add",),
        "def <f>(item, basket=None):\n    basket = [] if basket is None else basket\n"
        "    basket.append(item)\n    return basket",
        "<f>(1) == [1] and <f>(2) == [2]", "The default list is created once and then shared."),
    Job("bug_index", ("This crashes on the last round:\n\nfor i in range(len(a)):\n"
                      "    if a[i] > a[i + 1]:\n        return False",
                      "IndexError in my test whether prices of <many> rise:\n\n"
                      "for i in range(len(a)):\n    if a[i] > a[i + 1]:\n        return False"),
        ("rising", "is_sorted"),
        "def <f>(a):\n    return all(x <= y for x, y in zip(a, a[1:]))",
        "<f>([1, 2, 2]) and not <f>([2, 1])", "At the last i there is no a[i + 1]."),
    Job("bug_remove", ("Some <many> survive this loop:\n\nfor x in items:\n    if x < 0:\n"
                       "        items.remove(x)",
                       "Deleting while looping skips elements. How is it done properly?\n\n"
                       "for x in items:\n    if x < 0:\n        items.remove(x)"),
        ("kept", "not_negative"),
        "def <f>(items):\n    return [x for x in items if x >= 0]",
        "<f>([-1, -2, 3]) == [3]", "A list must not change while it is walked through."),
    Job("retry", ("A decorator that calls a function up to n times until it no longer raises.",
                  "Retry on OSError, at most n tries, as a decorator."),
        ("retry", "attempts"),
        "import functools\n\n\ndef <f>(n):\n    def decorate(function):\n"
        "        @functools.wraps(function)\n        def wrapper(*args, **kwargs):\n"
        "            for left in reversed(range(n)):\n                try:\n"
        "                    return function(*args, **kwargs)\n"
        "                except OSError:\n                    if left == 0:\n"
        "                        raise\n        return wrapper\n    return decorate",
        "<f>(2)(lambda: 5)() == 5", "The last failure is passed on."),
    Job("matrix", ("Turn rows into columns of a table given as list of lists.",
                   "Rotate a seating plan by 90 degrees clockwise."),
        ("columns", "turned"),
        "def <f>(rows):\n    return [list(column) for column in zip(*rows[::-1])]",
        "<f>([[1, 2], [3, 4]]) == [[3, 1], [4, 2]]", "Drop `[::-1]` for a plain transpose."),
    Job("longest", ("Longest word of a sentence; the first one if there are several.",
                    "Which word is the longest?"),
        ("longest", "longest_word"),
        "def <f>(sentence):\n    return max(sentence.split(), key=len)",
        "<f>('the old bridge shines') == 'bridge'", "`max` keeps the first of equals."),
)  # fmt: skip
