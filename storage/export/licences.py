"""Licences of data: the names that the hub knows them by, and which let anybody pass the data on.

IN a licence as a pool spells it. OUT its name on the hub, and whether it is free. This is a list,
no legal advice: what is not on it is refused until its user says otherwise.
"""

import re
from collections.abc import Mapping, Sequence

from selection.core.errors import InputError

NOT_NAMED = "not named"
"""How a licence is written that the pool does not name."""

_NAMES = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsl-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-2.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 etalab-2.0 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl
lgpl-2.1 lgpl-3.0 mit mpl-2.0 odbl odc-by pddl unlicense wtfpl zlib"""
FREE = frozenset(_NAMES.split())
"""Licences on the hub's list that let anybody pass the data on, in part and for any purpose."""

_LIMITED = frozenset(
    f"cc-by-{kind}-{version}"
    for kind in ("nc", "nc-sa", "nd", "nc-nd")
    for version in ("2.0", "3.0", "4.0")
)
_DEED = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/([\w-]+)/(\d\.\d)")


def hub_name(licence: str) -> str:
    """The name of a licence on the hub: `other` for one it has no name for, `unknown` for none."""
    if not licence.strip():
        return "unknown"
    if deed := _DEED.search(licence.lower()):
        kind, version = deed.groups()
        name = "cc0-1.0" if kind == "zero" else f"cc-{kind}-{version}"
    else:
        words = re.sub(r"[\s_]+", "-", licence.strip().lower())
        name = re.sub(r"^the-|(^|-)licen[cs]e(?=-|$)|,|-v(?=\d)", "", words).strip("-")
        name = re.sub(r"^(apache|afl|odc-by|odbl|pddl)-?(\d)(\.0)?$", _versioned, name)
    return name if name in FREE | _LIMITED else "other"


def _versioned(name: re.Match[str]) -> str:
    """The hub spells some names with their version and others without."""
    return name[1] if name[1] in FREE else f"{name[1]}-{name[2]}.0"


def held_back(licences: Mapping[str, int], allowed: Sequence[str] = ()) -> dict[str, int]:
    """Those licences that do not let anybody pass the data on, with their numbers of picks.

    allowed: licences that the user may pass on all the same, as the pool spells them.
    """
    named = {name.strip().lower() for name in allowed}
    return {
        licence or NOT_NAMED: n
        for licence, n in licences.items()
        if hub_name(licence) not in FREE and (licence.strip().lower() or NOT_NAMED) not in named
    }


def refuse_held_back(licences: Mapping[str, int], allowed: Sequence[str]) -> None:
    """Raise InputError where a licence does not let anybody pass the data on."""
    if kept := held_back(licences, allowed):
        options = " ".join(f"--allow-licence '{licence}'" for licence in kept)
        raise InputError(
            "these licences do not let everybody pass the data on, or are unknown to saelect",
            field="licence",
            value=", ".join(f"{licence} ({n:,})" for licence, n in kept.items()),
            remedy=f"Leave such rows out with `where`; if you may pass them on, add {options}.",
        )
