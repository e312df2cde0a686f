"""Baselines that train a model a little: `less` (gradients of candidates) and `loss_drop`.

Everything computed is a file: the warm-up, and one file per unit of candidates, with the seconds it
took. A killed run goes on at its first missing file and gives the same scores.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.evaluation.baselines.vectors import DenseTable
from selection.evaluation.influence.adapted import AdaptedModel, answers, mean_losses
from selection.evaluation.influence.gradients import projected_gradients, projections
from selection.evaluation.influence.warm_up import AdamState, WarmUp, warm_up
from selection.evaluation.labelled import Rows, RowScores, batches_of
from selection.records import Rendered
from storage.files.atomic import write_arrays

VERSION = 1
UNIT = 256
Arrays = dict[str, NDArray[Any]]
Advance = Callable[[int], None]

LESS: dict[str, Any] = {
    "rank": 16,
    "alpha": 64,
    "share": 0.05,  # of the candidates, drawn at random, for the warm-up
    "warm_up": {"epochs": 4, "batch": 32, "learning_rate": 1e-3, "seed": 0},
    "k": 8192,
    "most": 20_000,
}
LESS_STEPS = ("adam", "scaled")
"""adam: candidates are Adam's next steps, exemplars plain gradients, as LESS has it. scaled: both
are gradients divided by Adam's root mean squares; what earlier gradients add is left out."""

LOSS_DROP: dict[str, Any] = {
    "rank": 16,
    "alpha": 64,
    "warm_up": {"epochs": 2, "batch": 4, "learning_rate": 3e-4, "seed": 0},
}
_LEAST_WARM_UP = 32


@dataclass(frozen=True)
class Candidates:
    """n candidates as a trainee reads them: `content_mask` marks their response tokens.

    folder:  where results are kept; its name must stand for candidates, trainee and settings.
    samples: of some rows, in their order.
    load:    the trainee; called when the first thing is computed.
    """

    folder: Path
    n: int
    samples: Callable[[Rows], Sequence[Rendered]]
    load: Callable[[], AdaptedModel]
    _spent: list[float] = field(default_factory=list)

    @cached_property
    def _loaded(self) -> tuple[AdaptedModel, Mapping[str, torch.Tensor]]:
        trainee = self.load()
        return trainee, trainee.weights()

    @property
    def trainee(self) -> AdaptedModel:
        """The model with its adapters."""
        return self._loaded[0]

    @property
    def fresh(self) -> Mapping[str, torch.Tensor]:
        """The adapters' weights before any training."""
        return self._loaded[1]

    def kept(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of a file; made where it is missing."""
        file = self.folder / f"{name}.npz"
        if not file.exists():
            started, n_before = time.perf_counter(), len(self._spent)
            arrays = make()
            inside = sum(self._spent[n_before:])  # of files that this one asked for
            self._spent.append(time.perf_counter() - started - inside)
            arrays["seconds"] = np.array(self._spent[-1])
            write_arrays(file, arrays)
        with np.load(file) as stored:
            return {key: stored[key] for key in stored.files}

    def units(
        self, part: str, make: Callable[[Sequence[Rendered]], NDArray[Any]], advance: Advance
    ) -> Iterator[NDArray[Any]]:
        """What `make` gives of each unit of candidates, in order."""
        for rows in batches_of(self.n, UNIT):
            name, of_unit = f"{part}/unit-{int(rows[0]):09d}", partial(self._unit, make, rows)
            yield self.kept(name, of_unit)["values"]
            advance(len(rows))

    def _unit(self, make: Callable[[Sequence[Rendered]], NDArray[Any]], rows: Rows) -> Arrays:
        return {"values": make(self.samples(rows))}

    def seconds(self, part: str, name: str = "*") -> float:
        """What the files of a part, or one of them, took to compute."""
        total = 0.0
        for file in sorted((self.folder / part).glob(f"{name}.npz")):
            with np.load(file) as stored:
                total += float(stored["seconds"])
        return total


def refuse_too_many(n: int) -> None:
    """Raise InputError for more candidates than gradients are computed of."""
    if n > LESS["most"]:
        raise InputError(
            f"`less` computes a gradient of every candidate, of {LESS['most']:,} at most",
            field="--methods",
            value=f"less, {n:,} candidates",
            remedy="Name a sample of the pool with --subpool, or leave `less` out.",
        )


def less_tables(candidates: Candidates, id_order: Rows, advance: Advance) -> dict[str, DenseTable]:
    """One projected gradient per candidate after the warm-up, by each of `LESS_STEPS`."""
    refuse_too_many(candidates.n)
    adam: list[AdamState] = []

    def gradients(samples: Sequence[Rendered]) -> NDArray[Any]:
        if not adam:
            adam.append(_warmed(candidates))
        states = [adam[0], adam[0].without_first()]
        return _gradients(candidates, samples, states).astype(np.float16)

    parts = list(candidates.units("gradients", gradients, advance))
    return {
        step: DenseTable.of([part[i].astype(np.float32) for part in parts], id_order, center=False)
        for i, step in enumerate(LESS_STEPS)
    }


def less_exemplars(
    candidates: Candidates, name: str, exemplars: Sequence[Rendered]
) -> dict[str, NDArray[np.float32]]:
    """(m, k) projected gradients of a target's exemplars with a response, by step."""
    exemplars = with_response(name, exemplars)

    def make() -> Arrays:
        states = [None, _warmed(candidates).without_first()]
        return {"values": _gradients(candidates, exemplars, states)}

    vectors = candidates.kept(f"exemplars/{name}", make)["values"]
    return dict(zip(LESS_STEPS, vectors, strict=True))


def loss_drops(
    candidates: Candidates, name: str, exemplars: Sequence[Rendered], advance: Advance
) -> dict[str, RowScores]:
    """How far each candidate's loss falls when the model is warmed up on a target's exemplars.

    per_token: mean loss of response tokens, before minus after. relative: that, divided by the loss
    before. Candidates without a response score 0.
    """
    exemplars = with_response(name, exemplars)
    trainee_is_at: list[str] = []

    def losses_of(part: str) -> RowScores:
        def make(samples: Sequence[Rendered]) -> NDArray[Any]:
            if trainee_is_at != [part]:
                weights = candidates.fresh
                if part != "before":
                    weights = _trained_on(candidates, name, exemplars)
                candidates.trainee.set_weights(weights)
                trainee_is_at[:] = [part]
            return mean_losses(candidates.trainee, samples)

        return np.concatenate(list(candidates.units(part, make, advance)))

    before, after = losses_of("before"), losses_of(f"after/{name}")
    drop = np.nan_to_num(before - after)
    return {
        "per_token": drop,
        "relative": np.nan_to_num(drop / np.maximum(before, np.finfo(np.float64).tiny)),
    }


def with_response(name: str, exemplars: Sequence[Rendered]) -> list[Rendered]:
    """A target's exemplars that can be trained on. Raises InputError where there is none."""
    kept = [exemplars[row] for row in answers(exemplars).tolist()]
    if not kept:
        raise InputError(
            "no exemplar of this target has a response to train on",
            field="target",
            value=name,
            remedy="Give exemplars with responses, or leave `less` and `loss_drop` out.",
        )
    return kept


def _trained_on(
    candidates: Candidates, name: str, exemplars: Sequence[Rendered]
) -> dict[str, torch.Tensor]:
    """The adapters' weights after a warm-up on exemplars."""

    def make() -> Arrays:
        candidates.trainee.set_weights(candidates.fresh)
        warm_up(candidates.trainee, exemplars, WarmUp(**LOSS_DROP["warm_up"]))
        return _numpy(candidates.trainee.weights())

    return _tensors(candidates.kept(f"after/{name}/warm-up", make), "", candidates)


def _warmed(candidates: Candidates) -> AdamState:
    """Adam's state after the warm-up on random candidates; the trainee has the weights."""

    def make() -> Arrays:
        candidates.trainee.set_weights(candidates.fresh)
        rng = np.random.default_rng(LESS["warm_up"]["seed"])
        n_rows = min(candidates.n, max(_LEAST_WARM_UP, int(candidates.n * LESS["share"])))
        rows = np.sort(rng.permutation(candidates.n)[:n_rows])
        adam = warm_up(candidates.trainee, candidates.samples(rows), WarmUp(**LESS["warm_up"]))
        named = {"first/": adam.first, "second/": adam.second}
        named["weight/"] = candidates.trainee.weights()
        arrays = {
            f"{kind}{name}": x for kind, by in named.items() for name, x in _numpy(by).items()
        }
        return arrays | {"step": np.array(adam.step)}

    arrays = candidates.kept("gradients/warm-up", make)
    candidates.trainee.set_weights(_tensors(arrays, "weight/", candidates))
    first, second = (_tensors(arrays, kind, candidates) for kind in ("first/", "second/"))
    return AdamState(first, second, int(arrays["step"]))


def _gradients(
    candidates: Candidates, samples: Sequence[Rendered], states: Sequence[AdamState | None]
) -> NDArray[np.float32]:
    maps = projections(candidates.trainee, LESS["k"], LESS["warm_up"]["seed"])
    return projected_gradients(candidates.trainee, samples, maps, states)


def _numpy(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Arrays, prefix: str, candidates: Candidates) -> dict[str, torch.Tensor]:
    device, names = candidates.trainee.device, candidates.trainee.layers
    return {name: torch.from_numpy(arrays[f"{prefix}{name}"]).to(device) for name in names}
