"""Figures of a ranking and of picks, with plotly: the charts that a report has.

IN what was ranked or picked. OUT a `plotly.graph_objects.Figure`, which a notebook shows. A chart
is plain data until its last step; only that needs plotly.
"""

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.numbers import count
from selection.picking.budget import token_histogram, used_histogram
from selection.picking.selections import score_curve

if TYPE_CHECKING:
    from selection.interactive.picked import Selected
    from selection.interactive.ranked import Ranked

Chart = dict[str, Any]
_MOST_SOURCES = 12
_POOL, _PICKED = "#b9b6ac", "#0b6e69"  # those of the report


def ranking_chart(ranked: "Ranked") -> Chart:
    """Scores over ranks, dense at the top, where a budget cuts."""
    n, target = count(len(ranked.ranking.rows)), escape(ranked.target)
    axes = {"xaxis": {"title": {"text": "rank"}, "type": "log"}, "yaxis": _SIMILARITY}
    return {
        "data": [_curve(ranked)],
        "layout": {"title": {"text": f"{n} samples ranked for {target}"}, **axes},
    }


def picks_chart(selected: "Selected") -> Chart:
    """Three charts: picks on the curve of the scores; their tokens and sources beside the pool's.

    Tokens and sources are shares, of the ranked samples and of the picks.
    """
    ranked = selected.ranked
    tokens = ranked.vectors.token_counts()
    rows = ranked.eligibility.rows
    edges, *lengths = used_histogram(
        *(token_histogram(of, lambda part: tokens[part]) for of in (rows, selected.rows))
    ).values()
    bins = [f"{low} to {high - 1}" for low, high in pairwise(edges)]
    sources, *numbers = _sources(selected, rows)
    picks = {
        "type": "scatter",
        "mode": "markers",
        "name": "picked",
        "x": (selected.picks.positions + 1).tolist(),
        "y": ranked.ranking.scores[selected.picks.positions].tolist(),
        "text": [escape(text, quote=False) for text in selected.table["text"]],
        "marker": {"color": _PICKED},
        "showlegend": False,
    }
    bars = [
        trace
        for name, color, n_tokens, n_sources in zip(
            ("pool", "picked"), (_POOL, _PICKED), lengths, numbers, strict=True
        )
        for trace in (
            _bars(name, color, x=bins, y=_shares(n_tokens), axes="2"),
            _bars(name, color, x=_shares(n_sources), y=sources, axes="3"),
        )
    ]
    n, target = count(len(selected)), escape(ranked.target)
    share = {"tickformat": ".0%"}
    layout = {
        "title": {"text": f"{n} of {count(len(ranked.ranking.rows))} samples for {target}"},
        "xaxis": {"title": {"text": "rank"}, "type": "log"},
        "yaxis": _SIMILARITY | {"domain": [0.55, 1]},
        "xaxis2": {"title": {"text": "tokens"}, "domain": [0, 0.42], "anchor": "y2"},
        "yaxis2": share | {"domain": [0, 0.38], "anchor": "x2"},
        "xaxis3": share | {"title": {"text": "share"}, "domain": [0.62, 1], "anchor": "y3"},
        "yaxis3": {"domain": [0, 0.38], "anchor": "x3", "type": "category", "automargin": True},
        "height": 640,
        "legend": {"orientation": "h", "y": 0.46},
    }
    return {"data": [_curve(ranked), picks, *bars], "layout": layout}


def as_figure(chart: Chart) -> Any:
    """The chart as plotly's figure. Raises InputError where plotly is not installed."""
    try:
        from plotly.graph_objects import Figure
    except ImportError as error:
        raise InputError(
            "a plot needs plotly, which is not installed here",
            remedy="Install it: pip install plotly (saelect's extra `plots`).",
        ) from error
    return Figure(chart)


_SIMILARITY = {"title": {"text": "similarity"}, "rangemode": "tozero"}


def _curve(ranked: "Ranked") -> Chart:
    curve = score_curve(ranked.ranking.scores)
    line = {"color": _POOL}
    values = {"x": curve["ranks"], "y": curve["scores"]}
    return {"type": "scatter", "mode": "lines", "line": line, **values, "showlegend": False}


def _bars(name: str, color: str, *, x: Sequence[Any], y: Sequence[Any], axes: str) -> Chart:
    """Bars of one of pool and picks; lying where names stand at their left."""
    lies = bool(y) and isinstance(y[0], str)
    return {
        "type": "bar",
        "name": name,
        "orientation": "h" if lies else "v",
        "x": x,
        "y": y,
        "xaxis": f"x{axes}",
        "yaxis": f"y{axes}",
        "marker": {"color": color},
        "showlegend": not lies,
    }


def _sources(
    selected: "Selected", rows: NDArray[np.int64]
) -> tuple[list[str], list[int], list[int]]:
    """Sources, most picked last, as bars grow upwards; samples of each in the pool, and picks.

    The small ones are joined.
    """
    samples, where = selected.ranked.vectors.samples, selected.ranked.rules.where
    names, codes = samples.values("source", where)
    pool, picked = Counter(codes[rows].tolist()), Counter(codes[selected.rows].tolist())
    order = sorted(pool, key=lambda code: (-picked[code], -pool[code], names[code]))
    shown, rest = order, order[:0]
    if len(order) > _MOST_SOURCES:
        shown, rest = order[: _MOST_SOURCES - 1], order[_MOST_SOURCES - 1 :]
    bars = [(escape(names[code]), pool[code], picked[code]) for code in shown]
    if rest:
        sums = [sum(counts[code] for code in rest) for counts in (pool, picked)]
        bars.append((f"{len(rest)} others", sums[0], sums[1]))
    bars.reverse()
    texts, in_pool, in_picks = zip(*bars, strict=True) if bars else ((), (), ())
    return list(texts), list(in_pool), list(in_picks)


def _shares(numbers: Sequence[int]) -> list[float]:
    whole = sum(numbers) or 1
    return [number / whole for number in numbers]
