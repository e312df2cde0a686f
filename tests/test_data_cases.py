"""Every case of `tests.cases`: each row comes out as it was written, or with its reason."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from selection.core.errors import InputError
from selection.data.coverage import ReadReport
from selection.data.read import read_pool
from selection.records import PoolSource
from tests.cases.case import Case
from tests.cases.compared import COMPARED_CASES
from tests.cases.containers import CONTAINER_CASES
from tests.cases.published import PUBLISHED_CASES
from tests.cases.shapes import SHAPE_CASES
from tests.cases.talks import expected, flat

CASES = [*SHAPE_CASES, *CONTAINER_CASES, *PUBLISHED_CASES, *COMPARED_CASES]


def wanted(case: Case) -> Counter[tuple[Any, ...]]:
    tools = case.tools or [[] for _ in case.talks]
    return Counter(map(expected, case.talks, tools))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_row_comes_out_as_it_was_written_or_with_its_reason(
    case: Case, tmp_path: Path
) -> None:
    source = PoolSource(str(case.write(tmp_path)), **case.settings)
    report = ReadReport()
    if case.refused:
        with pytest.raises(InputError) as caught:
            list(read_pool(source, report))
        assert case.refused in str(caught.value)
        return
    batches = list(read_pool(source, report))
    rows = [row for batch in batches for row in batch.rows.to_pylist()]
    read = Counter(
        flat(json.loads(row["messages"]), json.loads(row["tools"] or "null")) for row in rows
    )
    assert read == wanted(case)
    drops = Counter(drop for batch in batches for drop in batch.drops["reason"].to_pylist())
    assert drops == Counter(case.drops)
    assert sum(batch.n_rows for batch in batches) == case.rows_read
    said = "\n".join(report.lines())
    assert all(words in said for words in case.says), said
