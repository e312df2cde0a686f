"""What training on selections gave: recorded, compared with the random control, refused if odd."""

import math
from pathlib import Path

import duckdb
import pytest

from selection.core.errors import InputError
from storage.audit.verify import summary, verify
from storage.export.outcome import record_outcome
from storage.queries.lookup import list_selections
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace


def test_outcomes_stand_beside_the_random_control_of_their_run(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    controls = [row for row in list_selections(workspace, "control") if row.method == "random"]
    control = controls[0]
    main = next(
        row
        for row in list_selections(workspace, "main")
        if (row.run_id, row.target) == (control.run_id, control.target)
    )
    assert record_outcome(workspace, main.selection_id, " gsm8k ", 0.5, "base-1b") == main.name
    record_outcome(workspace, main.selection_id, "gsm8k", 0.75, "base-1b")
    record_outcome(workspace, control.selection_id, "gsm8k", 0.5, "base-1b")
    record_outcome(workspace, main.selection_id, "gsm8k", 0.1, "other")
    record_outcome(workspace, main.selection_id, "loss", 2.0)
    query = (
        "SELECT selection_id, metric, trainee, times, mean, least, most, random_mean, gain"
        " FROM v_outcome ORDER BY metric, trainee, role"
    )
    rows = [tuple(row.values()) for row in run_sql(workspace, query).to_pylist()]
    assert rows == [
        (control.selection_id, "gsm8k", "base-1b", 1, 0.5, 0.5, 0.5, 0.5, 0.0),
        (main.selection_id, "gsm8k", "base-1b", 2, 0.625, 0.5, 0.75, 0.5, 0.125),
        (main.selection_id, "gsm8k", "other", 1, 0.1, 0.1, 0.1, None, None),
        (main.selection_id, "loss", None, 1, 2.0, 2.0, 2.0, None, None),
    ]
    assert "altered" not in summary(list(verify(workspace)))
    with duckdb.connect(str(workspace.catalog)) as connection:
        connection.execute("UPDATE outcome SET value = 0.9 WHERE metric = 'loss'")
    assert {f.name for f in verify(workspace) if f.state == "altered"} >= {
        "catalog.duckdb: outcome"
    }


def test_an_outcome_that_says_nothing_is_refused(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    name = list_selections(workspace, "main")[0].selection_id
    with pytest.raises(InputError, match=r"no selection has this name.*There are"):
        record_outcome(workspace, "nobody", "gsm8k", 0.5)
    for value in (math.nan, math.inf):
        with pytest.raises(InputError, match=r"`value`.*finite"):
            record_outcome(workspace, name, "gsm8k", value)
    with pytest.raises(InputError, match="`metric`"):
        record_outcome(workspace, name, " ", 0.5)
    with pytest.raises(InputError, match="`trainee`"):
        record_outcome(workspace, name, "gsm8k", 0.5, "")
    assert not run_sql(workspace, "FROM outcome").rows
