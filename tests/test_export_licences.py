"""Licences as data spell them: the hub's names, and what is refused before it is passed on."""

import pytest

from selection.core.errors import InputError
from storage.export.licences import FREE, held_back, hub_name, refuse_held_back


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "other"),
        ("apache 2", "apache-2.0"),
        ("MIT License", "mit"),
        ("The Unlicense", "unlicense"),
        ("mit", "mit"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("CC-BY-SA-3.0", "cc-by-sa-3.0"),
        ("cc_by_nc_4.0", "cc-by-nc-4.0"),
        ("CC0-1.0", "cc0-1.0"),
        ("https://creativecommons.org/licenses/by-nd/4.0/deed.en", "cc-by-nd-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("ODC-By-1.0", "odc-by"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("proprietary", "other"),
        ("mit OR proprietary", "other"),
        ("  ", "unknown"),
    ],
)
def test_a_licence_has_the_name_that_the_hub_knows(spelled: str, name: str) -> None:
    assert hub_name(spelled) == name


def test_every_free_name_is_its_own_hub_name() -> None:
    assert {hub_name(name) for name in FREE} == FREE
    assert {hub_name(name.upper().replace("-", " ")) for name in FREE} == FREE


def test_what_not_everybody_may_pass_on_is_held_back_until_it_is_named() -> None:
    licences = {"MIT": 5, "CC-BY-NC-4.0": 3, "": 2, "In-house": 1}
    assert held_back(licences) == {"CC-BY-NC-4.0": 3, "not named": 2, "In-house": 1}
    assert held_back(licences, ["cc-by-nc-4.0", "not named"]) == {"In-house": 1}
    assert held_back(licences, ["cc-by-nc-4.0", "Not named", "in-house"]) == {}
    with pytest.raises(InputError, match=r"In-house \(1\).*--allow-licence 'In-house'"):
        refuse_held_back(licences, ["cc-by-nc-4.0", "not named"])
    refuse_held_back({"MIT": 5}, [])
