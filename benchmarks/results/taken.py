"""Results that a benchmark writes as a page: its tables as numbers."""

import re
from collections.abc import Iterator
from typing import Any

Row = dict[str, str]
Figures = dict[str, Any]

_NUMBER = r"[+-]?\d+\.\d+"
_WITH_INTERVAL = re.compile(rf"({_NUMBER}) \[({_NUMBER}), ({_NUMBER})\]")
_HEADING = re.compile(r"^(?:#+ (.+)|\*\*([^*|]+)\*\*)$")
_CONTRAST = re.compile(rf"^- best - (\S+): ({_NUMBER}) \[({_NUMBER}), ({_NUMBER})\]", re.M)


def retrieval_figures(text: str) -> Figures:
    """Setting -> method -> mean, and how far `best` is ahead, with its interval.

    Those of the packaged model on the whole pool; BM25 and TF-IDF as they were measured again.
    """
    settings: Figures = {}
    for heads, rows in _tables(text):
        setting = heads[-1].removeprefix("Setting ")
        if "The packaged model" in heads and setting in ("full", "instance") and "all" in rows[0]:
            settings.setdefault(setting, {row["method"]: _of_method(row) for row in rows})
    for row in next(rows for _, rows in _tables(text) if "best - BM25" in rows[0]):
        if row["rows, model"] == "115,087, packaged":
            for name in ("BM25", "TF-IDF"):
                again = {"ndcg": float(row[name]), "ahead": _interval(row[f"best - {name}"])}
                settings[row["setting"]][name.replace("-", "").lower()] = again
    return settings


def finetune_figures(text: str) -> Figures:
    """Block -> tokens and tasks -> arm -> gain and how far `best` is ahead, with intervals."""
    blocks: Figures = {}
    for name in re.findall(r"^<!-- (?!end of)(\w+) -->$", text, re.M):
        block = text.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
        groups = blocks.setdefault(name, {})
        for heads, rows in _tables(block):
            if "gain" not in rows[0]:
                continue
            after = block.partition(f"**{heads[-1]}**")[2].partition("\n**")[0]
            ahead = {arm: _three(values) for arm, *values in _CONTRAST.findall(after)}
            group, _, targets = heads[-1].rpartition(": ")
            arms = {row["arm"]: {"gain": _interval(row["gain"])} for row in rows}
            for arm, values in ahead.items():
                arms[arm]["ahead"] = values
            groups[group] = {"targets": int(targets.split()[0]), "arms": arms}
    return blocks


def _of_method(row: Row) -> Figures:
    """Mean nDCG, and `best` less it."""
    ahead = row["best - it"]
    mean: Figures = {"ndcg": float(row["all"].split()[0])}
    return mean | ({"ahead": _interval(ahead)} if ahead else {})


def _interval(cell: str) -> Figures:
    """The numbers of `0.1 [0.0, 0.2]`."""
    match = _WITH_INTERVAL.fullmatch(cell)
    if match is None:
        raise ValueError(f"no number with an interval: {cell!r}")
    return _three(match.groups())


def _three(values: Any) -> Figures:
    return dict(zip(("mean", "lo", "hi"), map(float, values), strict=True))


def _tables(text: str) -> Iterator[tuple[list[str], list[Row]]]:
    """Every table of a page as rows by their heads, below the headings that it stands under."""
    levels: dict[int, str] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        found = _HEADING.match(line)
        if found:
            level = len(line) - len(line.lstrip("#")) or 9
            levels = {k: v for k, v in levels.items() if k < level}
            levels[level] = found[1] or found[2]
        elif re.fullmatch(r"[| :-]+", line) and number and lines[number - 1].startswith("|"):
            head = _cells(lines[number - 1])
            body = []
            for row in lines[number + 1 :]:
                if not row.startswith("|"):
                    break
                body.append(dict(zip(head, _cells(row), strict=True)))
            yield list(levels.values()) or [""], body


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")]
