"""Which methods a benchmark compares: presets and single settings by name or from YAML, baselines.

A method has variants (reductions, blocks, seeds). A bare name stands for its best variant on the
targets at hand, which favors the baseline; `name:variant` pins one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from flows.benchmark.trained import LESS, LESS_STEPS, LOSS_DROP
from flows.config.data import UnderTest
from flows.config.jobs import SelectConfig
from flows.config.load import PRESETS, resolve
from selection.core.errors import InputError
from selection.evaluation.baselines.cosine import REDUCTIONS
from selection.evaluation.baselines.methods import DSIR_SMOOTHING, read_scores

MAX_LENGTH = 256
"""Models see the turns cut at this many tokens; lexical methods see them whole."""

SCORE_KEYS = {"model", "sae", "rendering", "representation", "ranking", "faiss"}
"""Keys of a config that decide a benchmark's scores."""

BY_SCORES = ("mean", "max", "round_robin")


@dataclass(frozen=True)
class Method:
    """One method under comparison.

    kind:     what computes it: `ranking`, or the name of a baseline.
    variants: what is measured; `choose` says whether the best counts or their mean (seeds).
    settings: everything else that decides its scores, as JSON data.
    config:   of kind `ranking`: the config whose ranking is measured; of kind `sae_cosine`: the
              one whose vectors are.
    path:     of kind `external` and `encoder`: the file or folder.
    """

    name: str
    kind: str
    variants: tuple[str, ...]
    settings: Mapping[str, Any]
    choose: Literal["best", "mean"] = "best"
    config: SelectConfig | None = None
    path: Path | None = None


_LAST = "hidden_states[-1], all tokens"
_DENSE = tuple(f"{at}/{reduction}" for at in ("sae", "last") for reduction in REDUCTIONS)
_PLAIN_AND_IDF = tuple(
    f"{weighting}/{reduction}" for weighting in ("plain", "idf") for reduction in REDUCTIONS
)
_COSINE = tuple(f"cosine/{reduction}" for reduction in REDUCTIONS)
_LESS = tuple(f"{step}/{reduction}" for step in LESS_STEPS for reduction in REDUCTIONS)

BASELINES: dict[str, Method] = {
    method.name: method
    for method in (
        Method("random", "random", ("seed0", "seed1", "seed2"), {}, "mean"),
        Method("length", "length", ("log",), {"words": "search"}),
        Method("tfidf", "tfidf", REDUCTIONS, {"tf": "1 + ln", "idf": "smooth", "words": "search"}),
        Method("bm25", "bm25", BY_SCORES, {"k1": 1.5, "b": 0.75, "words": "search"}),
        Method("dsir", "dsir", tuple(DSIR_SMOOTHING), {"grams": 2, "buckets": 10_000}),
        Method("rds", "dense", _DENSE, {"tokens": "mean", "last": _LAST}),
        Method("rds+", "dense", _DENSE, {"tokens": "position", "last": _LAST}),
        Method("rds_centered", "dense", _DENSE, {"tokens": "mean", "last": _LAST, "center": True}),
        Method("tokens", "tokens", (*_PLAIN_AND_IDF, *_COSINE), {}),
        Method("gate", "gate", (*REDUCTIONS, *_COSINE), {"k": 32}),
        Method("split_relu", "split_relu", REDUCTIONS, {}),
        Method("sae_cosine", "sae_cosine", _PLAIN_AND_IDF, {}),
        Method("less", "less", _LESS, LESS),
        Method("loss_drop", "loss_drop", ("relative", "per_token"), LOSS_DROP),
    )
}
NEEDS_PASS = ("dense", "gate", "split_relu", "encoder")
TRAINED = ("less", "loss_drop")
"""Kinds that train the model a little; they cost much more, so they are measured if named."""

DEFAULT = ("best", "paper", *(name for name, each in BASELINES.items() if each.kind not in TRAINED))
KNOWN = (*DEFAULT, *TRAINED)


def find_methods(names: Sequence[str], given: UnderTest, field: str = "--methods") -> list[Method]:
    """The methods meant by names, `name:variant` and YAML files; encoder and score files join.

    A YAML file maps names to configs over a preset: {no-idf: {preset: best, ranking: {...}}}.
    field: the option that the names were given by.
    Raises InputError for unknown names, variants, a name that is given twice, and score files that
    cannot be read.
    """
    methods: list[Method] = []
    for name in names or DEFAULT:
        if Path(name).suffix in (".yaml", ".yml"):
            methods += _of_file(Path(name), given)
        else:
            methods.append(_by_name(name, given, field))
    if given.encoder:
        where = Path(given.encoder)
        methods.append(
            Method("encoder", "encoder", REDUCTIONS, {"tokens": "mean", "last": _LAST}, path=where)
        )
    for name, file in given.scores.items():
        read_scores(Path(file))  # refused now rather than after other methods' passes
        methods.append(Method(name, "external", ("given",), {}, path=Path(file)))
    known = [method.name for method in methods]
    for name in known:
        if known.count(name) > 1:
            raise InputError(
                "two methods have the same name",
                field="--methods",
                value=name,
                remedy="Rename one in its YAML file.",
            )
    return methods


def _by_name(name: str, given: UnderTest, field: str) -> Method:
    base, pinned, variant = name.partition(":")
    if base in PRESETS and base != "demo":
        method = _ranking(base, {"preset": base}, given, base)
    elif base == "sae_cosine":  # The vectors of `best` under another similarity.
        own = _ranking(base, {"preset": "best"}, given, base)
        method = replace(BASELINES[base], settings=own.settings, config=own.config)
    elif base in BASELINES:
        method = BASELINES[base]
    else:
        raise InputError(
            "no such method",
            field=field,
            value=name,
            remedy=f"Known: {', '.join(KNOWN)}, or a YAML file of configs.",
        )
    if not pinned:
        return method
    if variant not in method.variants:
        raise InputError(
            "no such variant of the method",
            field=field,
            value=name,
            remedy=f"`{base}` has: {', '.join(method.variants)}.",
        )
    return replace(method, name=name, variants=(variant,))


def _of_file(path: Path, given: UnderTest) -> list[Method]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            f"cannot be read ({error})", file=path, remedy="Give a YAML file of configs by name."
        ) from None
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise InputError(
            "does not map names to configs",
            file=path,
            remedy="For example: {no-idf: {preset: best, ranking: {weights: none}}}",
        )
    return [_ranking(str(name), config, given, str(path)) for name, config in value.items()]


def _ranking(name: str, config: Mapping[str, Any], given: UnderTest, source: str) -> Method:
    """A method from a config; the model and SAE under test stand where it names none."""
    rendering = {**config.get("rendering", {})}
    rendering.setdefault("max_length", MAX_LENGTH)
    model = {"name": given.model, "hookpoint": given.hookpoint, "dtype": given.dtype}
    under = {"model": model, "sae": given.sae}
    resolved = resolve(
        {
            **under,
            **config,
            "rendering": rendering,
            "pool": "benchmark",
            "exemplars": "benchmark",
            "budget": {"examples": 1},
        },
        source,
    )
    if resolved.ranking.method != "jaccard":
        raise InputError(
            "is measured as a baseline, not as a config",
            file=source,
            field="ranking.method",
            value=resolved.ranking.method,
            remedy="Name it in --methods.",
        )
    settings = resolved.model_dump(mode="json", include=SCORE_KEYS)
    return Method(name, "ranking", ("-",), settings, config=resolved)
