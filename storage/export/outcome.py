"""What training on a selection gave, as its user measured it: a row of the catalog for each figure.

IN a selection, a metric, a value. OUT rows of `outcome`; `v_outcome` compares them with the random
control of the same run.
"""

import math
from datetime import UTC, datetime

from selection.core.errors import InputError
from storage.catalog.commit import commit
from storage.files.workspace import Workspace
from storage.queries.lookup import find_selection


def record_outcome(
    workspace: Workspace, selection: str, metric: str, value: float, trainee: str | None = None
) -> str:
    """Record what a model that was trained on a selection reached; returns the selection's name.

    selection: a name or id that stands for one selection.
    metric:    name of what was measured. trainee: the model that was trained.
    Raises InputError for an unknown or ambiguous selection, an empty name, and a value that is not
    finite.
    """
    for field, text in (("metric", metric), ("trainee", trainee)):
        if text is not None and not text.strip():
            raise InputError("the name is empty", field=field, value=text, remedy="Give a name.")
    if not math.isfinite(value):
        raise InputError(
            "not a finite number", field="value", value=value, remedy="Give what was measured."
        )
    row = find_selection(workspace, selection)
    given = {"selection_id": row.selection_id, "metric": metric.strip(), "value": value}
    at = datetime.now(UTC)
    commit(workspace, {"outcome": [{**given, "trainee": trainee, "recorded_at": at}]})
    return row.name
