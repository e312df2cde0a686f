"""What `--dry-run` says of the forward pass, against what the pass then runs."""

import re
from pathlib import Path
from typing import Any

import pytest

from flows.stages.estimate import (
    Estimate,
    Tokens,
    VectorCost,
    count_tokens,
    estimate_run,
    estimate_vectors,
    keep_top_that_fits,
)
from flows.stages.estimate_lines import estimate_lines
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import open_model_input, render
from flows.stages.represent.representer import missing_rows, open_representer
from flows.stages.represent.spaces import representers_of
from flows.stages.represent.units import embed_rendered
from selection.activations.batching import needed_lengths
from selection.core.errors import InputError
from storage.files.workspace import open_workspace
from tests.run_stages import tiny_config
from tests.test_activations_shared_prefixes import Ran
from tests.tiny_model import tiny_row, write_jsonl

TASK = "Say what the text is about, in one line, without any name. "


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which two thirds begin with one task description."""
    rows = [tiny_row(i) for i in range(48)]
    for row in rows[: 2 * len(rows) // 3]:
        row["messages"][-2]["content"] = TASK + row["messages"][-2]["content"]
    return write_jsonl(tmp_path_factory.mktemp("dry") / "pool.jsonl", rows)


@pytest.mark.parametrize(
    ("compute", "rendering", "shares"),
    [
        ({}, {}, True),
        ({"share_prefixes": False}, {}, False),
        ({"packing": "padded"}, {"counted": "prompt"}, False),
        ({}, {"counted": "prompt"}, True),
    ],
)
def test_it_counts_the_tokens_that_are_run(
    pool: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path: Path,
    compute: dict[str, Any],
    rendering: dict[str, Any],
    shares: bool,
) -> None:
    config = tiny_config(
        pool, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir,
        compute=compute, rendering=rendering,
    )  # fmt: skip
    workspace = open_workspace(tmp_path / "workspace")
    printed = "\n".join(estimate_lines(estimate_run(config, workspace)))
    [(said, of)] = re.findall(r"forward +([\d,]+) of ([\d,]+) tokens", printed)
    rendered = render(workspace, prepare(config, workspace), open_model_input(config))
    representer = open_representer(config, workspace, str(tiny_sae_dir))
    missing = missing_rows(representer, rendered)
    expected = count_tokens(representer.model, config, rendered, missing)
    assert said == f"{expected.run:,}"
    assert of == f"{rendered.lengths()[missing].sum():,}"
    ran = Ran(representer.model)
    representer.unit  # noqa: B018 - calibrates, which runs other texts
    ran.rows.clear()
    assert embed_rendered([representer], rendered)["computed"] == len(missing)
    needed = needed_lengths(rendered.samples(missing), True).sum()
    if representer.model.packs:
        assert sum(ran.rows) == expected.run
    assert (expected.run < needed) == shares == ("tokens saved by shared prefixes" in printed)
    assert expected.needed == needed
    behind = rendered.lengths()[missing].sum() - needed
    assert f"{behind:,} tokens after the last content token are not run" in printed


def test_every_space_of_a_run_is_counted(
    pool: Path, tiny_exemplars_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    config = tiny_config(
        pool, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir,
        representation={"spaces": ["sae", {"kind": "sae", "token_aggregate": "max"}]},
    )  # fmt: skip
    workspace = open_workspace(tmp_path / "workspace")
    lines = estimate_lines(estimate_run(config, workspace))
    assert any("would be computed, each in 2 spaces" in line for line in lines)
    rendered = render(workspace, prepare(config, workspace), open_model_input(config))
    first = open_representer(config, workspace, str(tiny_sae_dir))
    both, missing = representers_of(config, first), missing_rows(first, rendered)
    sizes = [
        estimate_vectors(some, rendered, missing).n_bytes for some in (both[:1], both[1:], both)
    ]
    assert sizes[2] == pytest.approx(sizes[0] + sizes[1], abs=3)


def test_a_pool_of_which_no_token_counts_is_refused_before_the_model(
    pool: Path, tiny_exemplars_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    config = tiny_config(
        pool, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir,
        rendering={"max_length": 8, "counted": "response"},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"48 responses lie behind the cut"):
        estimate_run(config, open_workspace(tmp_path / "workspace"))


@pytest.mark.parametrize(
    ("n", "bytes_each", "free", "kept"),
    [
        (1_000_000, 6_000, 12_000_000_000, None),  # exactly half
        (1_000_000, 6_000, 11_999_999_998, 512),
        (1_000_000, 6_000, 2 * (256 * 6 + 24) * 1_000_000, 256),
        (1_000_000, 6_000, 2 * (256 * 6 + 23) * 1_000_000, 128),
        (1_000_000, 6_000, 1_000, 1),
    ],
)
def test_what_is_kept_of_a_large_pool_leaves_half_of_the_disk(
    n: int, bytes_each: int, free: int, kept: int | None
) -> None:
    assert keep_top_that_fits(n, n * bytes_each, free) == kept
    cost = VectorCost((1.0, 2.0, 3.0), n * bytes_each, Tokens(9, 9, 9))
    totals = dict.fromkeys(("n_tokens", "n_counted", "n_truncated", "n_response_lost"), 0)
    lines = estimate_lines(Estimate(n, n, (), n, totals, free, None, 0, n, 1, cost))
    [line] = [line for line in lines if line.startswith("  keep_top")]
    assert (f"{{keep_top: {kept}}}" in line) == (kept is not None)
