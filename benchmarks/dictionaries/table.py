"""Results of all models as a page: figures, nDCG with paired intervals, and what predicts it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from selection.evaluation.metrics import N_RESAMPLES, bootstrap_mean

RESULTS = Path(__file__).parent / "results.json"
PACKAGED = "the packaged model"
TARGET_UNIQUE = "TopK, weights `target_unique`"
_REFERENCE = "TopK"
_LEAST = 5  # dictionaries that are put in order
_INTRO = """# Dictionaries: which one ranks best?

Every kind of dictionary that saelect trains or reads
([what each is](../explanation/dictionaries.md)), on the same block of the same model, with the same
width, latents a token and training tokens. Each ranks a labelled sub-pool **alone** and **joined**
with tokens; everything else is the preset `best`.
Means of nDCG@1000 over targets (T1: the task itself is in the pool, T2: only a related one). *Less
`best`* is paired by target, with a 95 % bootstrap interval; `best` here is TopK joined with tokens.

    python -m benchmarks.dictionaries --pool POOL --targets TARGETS --subpool IDS --workspace DIR

*FVU*, *L0* and *dead* are of held-out tokens, in which a latent may be rare rather than dead. *Loss
recovered* replaces the activations of that place alone. *Seconds* are of the training, *tokens a
second* of encoding on one core, the forward pass aside; other work ran beside. FVU and loss
recovered compare dictionaries of one place only.
"""
_QUALITY = """
### What predicts the order

*Probe*: chance that a supervised direction in the activations scores a held-out exemplar above a
random sample. *1, 4, 16 latents*: the same by so many latents, chosen without the sample. *Kept*:
share of that separation that reconstructions keep. Means over targets
(`saelect describe --quality` prints them for your own).

"""
_RANKS = """
Spearman correlation with nDCG alone over the {n} dictionaries, with a 95 % interval over
{resamples:,} resamples of targets. So few dictionaries make it rough: below {critical:.2f} it is
not distinguishable from chance at 5 %.

"""


def page(results: Mapping[str, Any]) -> str:
    """Markdown of all models. results: name -> see `benchmarks.dictionaries.__main__.main`."""
    return _INTRO + "".join(
        text for name, result in results.items() for text in _model(name, result)
    )


def _model(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    dictionaries = result["dictionaries"]
    yield (
        f"\n## {name[0].upper()}{name[1:]}\n\nBlock {result['block']}, {result['latents']:,}"
        f" latents, {result['k']} a token, {result['train_tokens']:,} training tokens,"
        f" {dictionaries[_REFERENCE]['held_out_tokens']:,} held out, {result['n_rows']:,} rows,"
        f" {len(result['kinds'])} targets.\n\n"
    )
    head = ["dictionary", "read at", "FVU", "L0", "dead", "loss recovered", "seconds", "tokens/s"]
    rows = [
        [
            each,
            f"`{of['hookpoint']}`",
            _shown(of.get("fvu"), "{:.3f}"),
            _shown(of["l0"], "{:.1f}"),
            _shown(of["dead_share"], "{:.3f}"),
            _shown(of.get("ce_loss_score"), "{:.3f}"),
            _shown(of["seconds"], "{:,.0f}"),
            f"{of['tokens_per_s']:,}",
        ]
        for each, of in dictionaries.items()
    ]
    yield _markdown(head, rows, n_text=2)
    for setting in result["ndcg"]:
        yield from _setting(setting, result)
    yield _QUALITY
    yield _qualities(dictionaries)
    yield from _correlations(result)


def _setting(setting: str, result: Mapping[str, Any]) -> Iterator[str]:
    """Means of a setting, alone and joined; best first by the joined one."""
    yield f"\n### Setting {setting}\n\n"
    measured, starts = result["ndcg"][setting], [kind[:2] for kind in result["kinds"].values()]
    best = _values(result, setting, "joined", _REFERENCE)
    rows = []
    for kind, methods in measured.items():
        for name in methods:
            values = _values(result, setting, kind, name)
            label = {"others": name, "alone": name, "joined": f"{name} + tokens"}[kind]
            if kind == "others" and name == "best":
                label = "`best` with the shipped SAE"
            reference = kind == "joined" and name == _REFERENCE
            means = [values[[s == kind for s in starts]].mean() for kind in ("T1", "T2")]
            shown = [f"{mean:.3f}" for mean in (*means, values.mean())]
            change = bootstrap_mean(values - best)
            interval = f"{change.mean:+.3f} [{change.lo:+.3f}, {change.hi:+.3f}]"
            label = f"**{label}**" if reference else label
            rows.append((values.mean(), [label, *shown, "" if reference else interval]))
    rows.sort(key=lambda row: -row[0])
    yield _markdown(["ranked by", "T1", "T2", "all", "less `best`"], [row for _, row in rows])


def _qualities(dictionaries: Mapping[str, Any]) -> str:
    rows = []
    for name, of in dictionaries.items():
        each = list(of["quality"].values())
        kept = [one["kept"] for one in each if one["kept"] is not None]
        aucs = [np.mean([one["latents"][n] for one in each]) for n in ("1", "4", "16")]
        probe = float(np.mean([one["probe"] for one in each]))
        shown = [f"{value:.3f}" for value in (probe, *aucs)]
        rows.append([name, *shown, f"{np.mean(kept):.3f}" if kept else ""])
    head = ["dictionary", "probe", "1 latent", "4 latents", "16 latents", "kept"]
    return _markdown(head, rows)


def _correlations(result: Mapping[str, Any]) -> Iterator[str]:
    """How well each figure orders the dictionaries as nDCG does."""
    dictionaries, settings = result["dictionaries"], list(result["ndcg"])
    targets = list(result["kinds"])
    ndcg = {
        name: np.mean([_values(result, setting, "alone", name) for setting in settings], axis=0)
        for name in dictionaries
    }
    place = dictionaries[_REFERENCE]["hookpoint"]

    def spread(of: Mapping[str, Any], key: str, sign: int) -> NDArray[np.float64] | None:
        """The same for every target; of other places it means something else."""
        if of["hookpoint"] != place or key not in of:
            return None
        return np.full(len(targets), sign * of[key])

    measures: dict[str, Callable[[Mapping[str, Any]], NDArray[np.float64] | None]] = {
        "FVU, least first": lambda of: spread(of, "fvu", -1),
        "loss recovered": lambda of: spread(of, "ce_loss_score", 1),
        "probe": lambda of: np.array([of["quality"][t]["probe"] for t in targets]),
        **{
            f"{n} latents": lambda of, n=n: np.array(  # type: ignore[misc]
                [of["quality"][t]["latents"][n] for t in targets]
            )
            for n in ("1", "4", "16")
        },
    }
    yield _RANKS.format(n=len(dictionaries), resamples=N_RESAMPLES, critical=_critical(len(ndcg)))
    rows = []
    for label, measure in measures.items():
        found = {name: measure(of) for name, of in dictionaries.items()}
        known = {name: values for name, values in found.items() if values is not None}
        if len(known) < _LEAST:
            continue
        names = list(known)
        a, b = (np.array([each[name] for name in names]) for each in (known, ndcg))
        rho, lo, hi = rank_correlation(a, b)
        if np.isnan(rho):
            continue
        rows.append([label, str(len(names)), f"{rho:+.2f} [{lo:+.2f}, {hi:+.2f}]"])
    yield _markdown(["figure", "dictionaries", "Spearman"], rows)


def rank_correlation(
    a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0
) -> tuple[float, float, float]:
    """Spearman correlation of the row means of a and b (d, t), and its interval over targets."""
    drawn = np.random.default_rng(seed).integers(0, a.shape[1], (N_RESAMPLES, a.shape[1]))
    values = [_spearman(a[:, columns].mean(1), b[:, columns].mean(1)) for columns in drawn]
    defined = [value for value in values if not np.isnan(value)] or [float("nan")]
    lo, hi = np.quantile(defined, [0.025, 0.975])
    return _spearman(a.mean(1), b.mean(1)), float(lo), float(hi)


def _spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    ranks = [rankdata(each) for each in (a, b)]
    if min(each.std() for each in ranks) == 0:
        return float("nan")  # where all are equal there is no order
    return float(np.corrcoef(*ranks)[0, 1])


def _critical(n: int) -> float:
    """Smallest correlation of n ranks without ties that chance reaches in at most 5 % of orders."""
    rng, own = np.random.default_rng(0), np.arange(n, dtype=np.float64)
    drawn = np.sort([abs(_spearman(own, rng.permutation(own))) for _ in range(4000)])
    return float(drawn[int(0.95 * len(drawn))])


def _values(result: Mapping[str, Any], setting: str, kind: str, name: str) -> NDArray[np.float64]:
    """By target, in the order of the targets: nDCG@1000."""
    of_target = result["ndcg"][setting][kind][name]
    return np.array([of_target[target] for target in result["kinds"]])


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], n_text: int = 1) -> str:
    lines = [head, ["---"] * n_text + ["---:"] * (len(head) - n_text), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
