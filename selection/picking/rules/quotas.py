"""Quotas: how many picks may, and must, have a value in a column.

A quota is held while the ranking is walked: a candidate whose value is at its cap is passed over,
and the last picks are reserved for unmet floors. With quotas on one column no other set
of that size has better candidates; with several columns every candidate is still the best that
the numbers of each column allow, but floors of two columns together can turn out unmeetable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one value may have; each is a number of examples (int) or a share of them (float).

    share: exactly this much, up to rounding to whole examples. floor: at least. cap: at most.
    """

    share: int | float | None = None
    floor: int | float | None = None
    cap: int | float | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """The quotas of one column.

    values: value -> its bounds. others: bounds of every value that is not named.
    """

    column: str
    values: Mapping[str, Bounds]
    others: Bounds = Bounds()


ColumnValues = tuple[list[str], NDArray[np.int32]]
"""Values of a column, and (n_pool,) number of the value of each row, -1 for none."""


@dataclass(frozen=True, slots=True)
class ColumnLimits:
    """A quota in whole examples, for a selection of n.

    column: its name. names: the values. codes: (n_pool,) int32 value of each row, -1 for none.
    floors, caps: (len(names),) int64; a row without a value has neither.
    """

    column: str
    names: Sequence[str]
    codes: NDArray[np.int32]
    floors: NDArray[np.int64]
    caps: NDArray[np.int64]


def limits_of(quota: Quota, names: Sequence[str], codes: NDArray[np.int32], n: int) -> ColumnLimits:
    """Turn shares into whole examples of a selection of n: floors up, caps down, shares to both.

    A share of s means at least floor(s n) and at most ceil(s n); decimals are taken as written.
    """
    floors, caps = np.zeros(len(names), np.int64), np.full(len(names), n, np.int64)
    for i, name in enumerate(names):
        bounds = quota.values.get(name, quota.others)
        if bounds.share is not None:
            floors[i], caps[i] = _whole(bounds.share, n, up=False), _whole(bounds.share, n, up=True)
        if bounds.floor is not None:
            floors[i] = max(floors[i], _whole(bounds.floor, n, up=True))
        if bounds.cap is not None:
            caps[i] = min(caps[i], _whole(bounds.cap, n, up=False))
    return ColumnLimits(quota.column, names, codes, floors, caps)


def _whole(amount: int | float, n: int, *, up: bool) -> int:
    if isinstance(amount, int):
        return amount
    exact = Fraction(repr(amount)) * n
    return ceil(exact) if up else int(exact)


def check_quotas(
    quotas: Sequence[Quota],
    columns: Sequence[ColumnValues],
    eligible: NDArray[np.bool_],
    n: int | None,
) -> None:
    """Refuse quotas that no selection can meet. n: its examples; None for a token budget.

    Without n only values that no eligible row has are refused. Raises InputError.
    """
    for quota, (names, codes) in zip(quotas, columns, strict=True):
        present = {names[code] for code in np.unique(codes[eligible & (codes >= 0)])}
        if n is not None or not present.issuperset(quota.values):
            check_quota(quota, limits_of(quota, names, codes, n or 1), eligible, n or 1)


def check_quota(quota: Quota, limits: ColumnLimits, eligible: NDArray[np.bool_], n: int) -> None:
    """Refuse quotas that no selection of n of the eligible rows can meet, with the numbers.

    Raises InputError for a named value that no eligible row has, a floor above its cap or above
    what there is, floors that together exceed n, and caps that together stay below n.
    """
    codes = limits.codes[eligible]
    there = np.bincount(codes[codes >= 0], minlength=len(limits.names))
    n_without = int((codes < 0).sum())

    def refuse(problem: str, remedy: str, name: str = "", value: object = None) -> NoReturn:
        field = ".".join(["quotas", quota.column, *([name] if name else [])])
        raise InputError(problem, field=field, value=value, remedy=remedy)

    unknown = [name for name in quota.values if name not in limits.names]
    if unknown:
        values = _listed(dict(zip(limits.names, there.tolist(), strict=True)))
        refuse("no example has this value", f"Values: {values}.", value=unknown[0])
    for i, name in enumerate(limits.names):
        floor, cap, n_there = int(limits.floors[i]), int(limits.caps[i]), int(there[i])
        if floor > cap:
            problem = f"at least {floor:,} and at most {cap:,} of {n:,} picks cannot both hold"
            refuse(problem, "Lower the floor or raise the cap.", name)
        if floor > n_there:
            problem = f"at least {floor:,} picks are asked for, and {n_there:,} eligible examples"
            remedy = f"Ask for at most {n_there:,}, loosen `where`, or add to the pool."
            refuse(f"{problem} have this value", remedy, name)
    if limits.floors.sum() > n:
        floors = {name: int(v) for name, v in zip(limits.names, limits.floors, strict=True) if v}
        problem = f"the floors add up to {int(limits.floors.sum()):,}, and the budget is {n:,}"
        remedy = "Lower floors or shares, or raise the budget."
        refuse(f"{problem} ({_listed(floors)})", remedy)
    room = np.minimum(limits.caps, there)
    most = int(room.sum()) + n_without
    if most < n:
        by_value = _listed(dict(zip(limits.names, room.tolist(), strict=True)))
        others = f", no value: {n_without:,}" if n_without else ""
        problem = f"caps and what there is leave room for {most:,} picks, and the budget is {n:,}"
        refuse(f"{problem} ({by_value}{others})", "Raise caps or shares, or lower the budget.")


def _listed(numbers: Mapping[str, int], most: int = 8) -> str:
    """The largest numbers by name."""
    top = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    more = f", and {len(top) - most} more" if len(top) > most else ""
    return ", ".join(f"{name}: {number:,}" for name, number in top[:most]) + more


class QuotaWalk:
    """Which candidate may be taken next, given what was taken so far."""

    def __init__(self, limits: Sequence[ColumnLimits], n: int) -> None:
        """Start a selection of n with nothing taken."""
        self.limits, self.left = limits, n
        self.taken = [np.zeros(len(each.names), np.int64) for each in limits]
        self.missing = [int(each.floors.sum()) for each in limits]

    def refusal(self, row: int) -> str:
        """Why a row may not be taken, e.g. "source=wiki is at its cap of 50"; empty if it may."""
        for each, taken, missing in zip(self.limits, self.taken, self.missing, strict=True):
            code = int(each.codes[row])
            if code >= 0 and taken[code] >= each.caps[code]:
                return f"{each.column}={each.names[code]} is at its cap of {each.caps[code]}"
            if missing >= self.left and not self._fills(each, taken, code):
                return f"the last {missing} picks are reserved for floors of {each.column}"
        return ""

    def take(self, row: int) -> str:
        """Take a row; returns the floor that alone let it in, or an empty string."""
        by_floor = ""
        for i, each in enumerate(self.limits):
            code = int(each.codes[row])
            if self._fills(each, self.taken[i], code):
                if self.missing[i] >= self.left:
                    floor = int(each.floors[code])
                    by_floor = f"{each.column}={each.names[code]} has a floor of {floor}"
                self.missing[i] -= 1
            if code >= 0:
                self.taken[i][code] += 1
        self.left -= 1
        return by_floor

    def shortfall(self) -> str:
        """Unmet floors as a sentence; empty if all are met."""
        unmet = [
            f"{each.column}={each.names[int(i)]} has {taken[i]} of at least {each.floors[i]}"
            for each, taken in zip(self.limits, self.taken, strict=True)
            for i in np.flatnonzero(taken < each.floors)
        ]
        return f"Floors that could not be met: {'; '.join(unmet)}." if unmet else ""

    @staticmethod
    def _fills(limits: ColumnLimits, taken: NDArray[np.int64], code: int) -> bool:
        return code >= 0 and bool(taken[code] < limits.floors[code])
