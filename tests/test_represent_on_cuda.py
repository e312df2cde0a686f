"""What a run on CUDA does otherwise than one on the CPU, on a device made of the CPU's memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import selection.models.batching
import selection.representation.heads
from flows.config.load import resolve
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import open_model_input, render
from flows.stages.represent.devices import claim_device
from flows.stages.represent.representer import Representer, open_representer
from flows.stages.represent.sae import calibration_samples
from flows.stages.represent.units import embed_rendered
from selection.core.errors import InputError
from selection.core.sparse import take, to_dense
from selection.models.activations import ActivationModel, load_activation_model
from selection.models.batching import ActivationBatch
from selection.models.hookpoints import parse_hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered, SparseRows
from selection.representation.heads import Head
from selection.representation.represent import UnitReport, calibrate_head, represent_heads
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import encode
from selection.sae.formats.load import load_sae
from selection.sae.metadata import SaeInfo
from selection.similarity.queries import exemplar_queries, score
from storage.files.workspace import open_workspace
from storage.pools.renderings import RenderedPool
from storage.pools.shards import open_shards
from tests.conftest import Paths
from tests.fake_cuda import CUDA, UUID, FakeCuda, fake_cuda
from tests.run_stages import tiny_config
from tests.tiny_model import TINY_D_MODEL, TINY_K, TINY_N_LATENTS

DEMO = Path(__file__).parents[1] / "flows" / "demo"
LENGTHS = (20, 3, 60, 5, 33, 47, 12, 60, 28)
UNIT = 1e-3


def sample(n: int, seed: int) -> Rendered:
    rng = np.random.default_rng(seed)
    counted = rng.random(n) < 0.8
    return Rendered(rng.integers(7, 300, n).astype(np.uint32), counted, n, False, False)


SAMPLES = [sample(n, seed) for seed, n in enumerate(LENGTHS)]
SAMPLES.insert(2, replace(sample(9, 99), content_mask=np.zeros(9, np.bool_)))


@pytest.fixture(scope="module")
def resolved(tiny_model_dir: Path) -> ResolvedModel:
    return resolve_model(str(tiny_model_dir))


@pytest.fixture(scope="module")
def coder(tiny_sae_dir: Path) -> SparseCoder:
    return load_sae(tiny_sae_dir)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    with fake_cuda(monkeypatch) as found:
        yield found


def loaded(
    resolved: ResolvedModel, device: str = "cuda", dtype: str = "float32", **more: Any
) -> ActivationModel:
    places = [parse_hookpoint(text, resolved.n_layers) for text in ("mlp@1", "resid@2")]
    return load_activation_model(resolved, places, device, dtype, **more)


def heads_of(model: ActivationModel, coder: SparseCoder) -> list[Head]:
    """One of every kind; the third leaves out long tokens, the fourth latents and small values."""
    low, high = model.hookpoints
    return [
        Head(high, coder, "mean", UNIT),
        Head(low, coder, "sum", UNIT),
        Head(high, coder, "max", UNIT, max_norm=12.0),
        Head(high, coder, "mean", UNIT, keep_top=5, excluded=np.array([3, 8], np.int32)),
    ]


def by_head(
    model: ActivationModel, coder: SparseCoder, tokens_per_batch: int | None = None
) -> list[tuple[SparseRows, UnitReport]]:
    return represent_heads(SAMPLES, model, heads_of(model, coder), tokens_per_batch)


def assert_equal_within_a_step(
    found: list[tuple[SparseRows, UnitReport]], expected: list[tuple[SparseRows, UnitReport]]
) -> None:
    for (rows, report), (others, other_report) in zip(found, expected, strict=True):
        assert np.array_equal(rows.indptr, others.indptr)
        assert np.array_equal(rows.latents, others.latents)
        assert np.abs(rows.values.astype(np.int64) - others.values).max() <= 1
        assert report.n_outliers == other_report.n_outliers
        assert report.mass == pytest.approx(other_report.mass, rel=1e-5)


# The fake device itself: what it would not notice, no test below would.


def test_the_fake_refuses_tensors_of_two_places(device: FakeCuda) -> None:
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert there.device == CUDA
    with pytest.raises(RuntimeError, match="found cuda:0 and cpu"):
        there + here
    with pytest.raises(RuntimeError):
        there.numpy()
    assert (there * 2).cpu().tolist() == [2.0, 2.0, 2.0]
    assert float((there + 1).sum()) == 6.0
    assert [copy.shape for copy in device.to_host()] == [(3,), ()]


def test_a_copy_that_is_not_waited_for_is_wrong_on_the_fake(device: FakeCuda) -> None:
    there = torch.arange(4, device="cuda")
    into = torch.empty(4, dtype=torch.int64, pin_memory=True)
    into.copy_(there, non_blocking=True)
    early = into.clone()
    torch.cuda.current_stream(CUDA).synchronize()
    assert (early != into).all()
    assert into.tolist() == [0, 1, 2, 3]
    [copy] = device.copies
    assert (copy.to_host, copy.pinned, copy.non_blocking) == (True, True, True)


def test_the_fakes_memory_is_counted_and_ends(device: FakeCuda) -> None:
    first = torch.zeros(1000, device="cuda")
    view = first[:10]
    assert device.n_bytes == 4000
    del first
    assert device.n_bytes == 4000
    del view
    assert device.n_bytes == 0
    device.capacity = 5000
    kept = torch.zeros(1000, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):
        kept + 1
    assert (device.n_bytes, device.peak) == (4000, 4000)


# One unit on the device.


def test_the_device_gives_the_vectors_of_the_cpu(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    here, there = loaded(resolved, "cpu"), loaded(resolved)
    assert (here.device.type, there.device) == ("cpu", CUDA)
    for tokens_per_batch in (None, 100):  # all in one batch, and several
        expected, found = (by_head(m, coder, tokens_per_batch) for m in (here, there))
        assert_equal_within_a_step(found, expected)
    assert found[2][1].n_outliers > 10
    assert len({rows.values.tobytes() for rows, _ in found}) == 4


def test_batches_are_padded_and_larger_on_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    here, there = loaded(resolved, "cpu"), loaded(resolved)
    assert (here.packs, there.packs) == (True, False)
    assert there.tokens_per_batch(None) > here.tokens_per_batch(None)
    assert there.tokens_per_batch(300) == 300
    device.copies.clear()
    represent_heads(SAMPLES, there, [heads_of(there, coder)[0]], 300)
    runs = [copy.shape for copy in device.to_device() if copy.pinned and len(copy.shape) == 2]
    assert len(runs) > 1
    assert sum(rows for rows, _ in runs) == len(LENGTHS)
    assert all(rows * longest <= 300 for rows, longest in runs)


def test_packed_batches_run_on_the_device_where_they_are_asked_for(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    there = loaded(resolved, packing="packed")
    assert there.packs
    assert_equal_within_a_step(by_head(there, coder), by_head(loaded(resolved, "cpu"), coder))


def test_auto_means_the_device_and_bfloat16(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    there = loaded(resolved, "auto", "auto")
    assert (there.device, there.dtype) == (CUDA, "bfloat16")
    [batch] = selection.models.batching.iter_activations(there, SAMPLES, None)
    assert all((part.device, part.dtype) == (CUDA, torch.float32) for part in batch.distinct)
    here = loaded(resolved, "cpu", "bfloat16")
    [(rows, _), *_], [(others, _), *_] = by_head(there, coder), by_head(here, coder)
    assert abs(len(rows.values) - len(others.values)) < 0.05 * len(others.values)


def test_only_sparse_rows_leave_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    model = loaded(resolved)
    head = Head(model.hookpoint, coder, "mean", UNIT)
    device.copies.clear()
    [(rows, report)] = represent_heads(SAMPLES, model, [head], 10_000)
    back = device.to_host()
    scalars = [copy for copy in back if not copy.shape]
    assert len(scalars) < 5
    # Latents, sums and maxima, the lengths of rows, and the norm of every token.
    allowed = 3 * report.n_values + len(LENGTHS) + report.n_tokens
    assert sum(copy.n_values for copy in back) - len(scalars) == allowed
    largest = max(copy.n_values for copy in back)
    assert largest == report.n_values == len(rows.values)
    assert 1.5 * largest < report.n_tokens * TINY_K  # less than the latents of the tokens
    assert 10 * largest < report.n_tokens * TINY_D_MODEL
    assert all(copy.pinned for copy in back if copy.non_blocking)


def test_left_out_tokens_are_left_out_on_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    model = loaded(resolved)
    head = Head(model.hookpoint, coder, "mean", UNIT, max_norm=8.0)
    device.copies.clear()
    [(_, report)] = represent_heads(SAMPLES, model, [head], 10_000)
    assert report.n_outliers > 0
    masks = [copy for copy in device.to_host() if copy.dtype == torch.bool and copy.shape]
    assert [copy.shape for copy in masks] == [(report.n_tokens,)]
    assert max(copy.n_values for copy in device.to_host()) <= report.n_tokens * TINY_K


def test_heads_that_count_other_tokens_read_one_pass_on_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    """One reading counts nothing at all, so that a batch of it is empty."""
    every = [replace(s, content_mask=np.ones_like(s.content_mask)) for s in SAMPLES]
    none = [replace(s, content_mask=np.zeros_like(s.content_mask)) for s in SAMPLES]
    found, expected = (
        represent_heads(SAMPLES, m, heads_of(m, coder)[:3], None, None, [SAMPLES, every, none])
        for m in (loaded(resolved), loaded(resolved, "cpu"))
    )
    assert_equal_within_a_step(found[:2], expected[:2])
    assert (found[2][1].n_values, found[2][1].n_empty) == (0, 10)


def test_a_batch_in_which_no_latent_is_active_has_empty_rows(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    silent = make_coder(
        coder.encoder_weight,
        coder.encoder_bias - 1e6,
        coder.decoder_weight,
        coder.decoder_bias,
        info=replace(coder.info, activation="relu", k=0),
    )
    model = loaded(resolved)
    [(rows, report)] = represent_heads(SAMPLES, model, [Head(model.hookpoint, silent, "mean")])
    assert (len(rows), report.n_values, report.n_empty) == (10, 0, 10)


def test_tokens_go_to_the_device_without_being_waited_for(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    model = loaded(resolved)
    there = coder.to(CUDA)
    device.copies.clear()
    represent_heads(SAMPLES, model, [Head(model.hookpoint, there, "mean", UNIT)], 10_000)
    sent = device.to_device()
    ids = [copy for copy in sent if len(copy.shape) == 2]
    assert [copy.shape for copy in ids] == [(len(LENGTHS), max(LENGTHS))]
    assert all(copy.pinned and copy.non_blocking for copy in ids)
    assert not any(copy.dtype.is_floating_point for copy in sent)  # no weights with a unit


def test_a_calibration_on_the_device_is_that_of_the_cpu(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    found, expected = (
        calibrate_head(
            SAMPLES,
            model,
            Head(model.hookpoint, coder, "max"),
            max_norm_ratio=1.2,
            ever_present_share=0.5,
        )
        for model in (loaded(resolved), loaded(resolved, "cpu"))
    )
    assert found.unit == pytest.approx(expected.unit, rel=1e-5)
    assert found.median_norm == pytest.approx(expected.median_norm, rel=1e-3)
    assert found.ever_present == expected.ever_present


@pytest.mark.parametrize("activation", ["topk", "groupmax", "relu", "jumprelu", "gated"])
def test_every_kind_of_sae_encodes_on_the_device(device: FakeCuda, activation: str) -> None:
    g = torch.Generator().manual_seed(0)
    d, m = 16, 96
    extra = {
        "jumprelu": {"threshold": torch.rand(m, generator=g)},
        "gated": {
            "magnitude_scale": torch.rand(m, generator=g),
            "magnitude_bias": torch.randn(m, generator=g),
        },
    }
    made = make_coder(
        torch.randn(m, d, generator=g),
        torch.randn(m, generator=g),
        torch.randn(m, d, generator=g),
        torch.randn(d, generator=g),
        info=SaeInfo("", None, d, m, 6 if activation in ("topk", "groupmax") else 0, activation),
        act_scale=torch.rand(m, generator=g) + 0.5,
        **extra.get(activation, {}),
    )
    x = torch.randn(50, d, generator=g)
    found, expected = encode(made.to(CUDA), x.to(CUDA)), encode(made, x)
    assert (found.top_acts.device, found.top_indices.device) == (CUDA, CUDA)
    dense = torch.zeros(50, m).scatter_(1, found.top_indices.cpu(), found.top_acts.cpu())
    assert torch.equal(dense, torch.zeros(50, m).scatter_(1, *expected[::-1]))


# Memory of the device.


def test_earlier_batches_hold_no_memory_of_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    model = loaded(resolved)
    heads = [replace(head, coder=coder.to(CUDA)) for head in heads_of(model, coder)]
    before, peaks = device.n_bytes, []
    for n in (1, 10):
        device.peak = before
        represent_heads([sample(40, seed) for seed in range(2 * n)], model, heads, 80)
        peaks.append(device.peak - before)
        assert device.n_bytes == before
    assert peaks[1] < 1.2 * peaks[0]


def tried_batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Filled with the rows of each batch that is begun."""
    tried: list[list[int]] = []
    run = selection.models.batching._run_batch

    def running(
        model: ActivationModel, samples: Any, rows: NDArray[np.int64], lengths: Any
    ) -> ActivationBatch:
        tried.append(rows.tolist())
        return run(model, samples, rows, lengths)

    monkeypatch.setattr(selection.models.batching, "_run_batch", running)
    return tried


def halved(rows: list[int], fits: Callable[[list[int]], bool]) -> list[list[int]]:
    """Batches in the order in which the rule begins them, the first half first."""
    if fits(rows):
        return [rows]
    half = len(rows) // 2
    return [rows, *halved(rows[:half], fits), *halved(rows[half:], fits)]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (ActivationModel, "_run"),
        (selection.representation.heads, "encode"),
        (selection.representation.heads, "aggregate_device"),
    ],
    ids=["model", "encode", "aggregate"],
)
def test_a_batch_that_does_not_fit_is_halved_wherever_memory_ends(
    place: Any,
    name: str,
    device: FakeCuda,
    resolved: ResolvedModel,
    coder: SparseCoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = loaded(resolved)
    expected = by_head(model, coder)
    tried, whole = tried_batches(monkeypatch), getattr(place, name)

    def limited(*given: Any) -> Any:
        if len(tried[-1]) > 3:
            raise torch.OutOfMemoryError("no memory")
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, limited)
        found = by_head(model, coder)
    lengths = [len(s.tokens) if s.content_mask.any() else 0 for s in SAMPLES]
    longest_first = sorted(np.flatnonzero(lengths).tolist(), key=lambda row: -needed(row))
    assert tried == halved(longest_first, lambda rows: len(rows) <= 3)
    assert len(tried) == 7
    assert_equal_within_a_step(found, expected)
    assert {report.plan for _, report in expected} == {"full"}
    assert {report.plan for _, report in found} == {"reduced"}
    assert {report.plan for _, report in by_head(model, coder)} == {"full"}


def needed(row: int) -> int:
    """Tokens of a sample up to its last counted one."""
    return int(np.flatnonzero(SAMPLES[row].content_mask)[-1]) + 1


def test_a_failed_batch_leaves_nothing_on_the_device(
    device: FakeCuda,
    resolved: ResolvedModel,
    coder: SparseCoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory ends at every place in turn, as it does where the batch is just too large."""
    model = loaded(resolved)
    heads = [replace(head, coder=coder.to(CUDA)) for head in heads_of(model, coder)]
    expected = represent_heads(SAMPLES, model, heads)
    weights, whole = device.n_bytes, device.peak
    for share in np.linspace(0.99, 0.3, 12):
        device.capacity = weights + int(share * (whole - weights))
        device.n_bytes_when_emptied.clear()
        with monkeypatch.context() as patch:
            tried = tried_batches(patch)
            found = represent_heads(SAMPLES, model, heads)
        assert len(tried) == 1 + 2 * len(device.n_bytes_when_emptied) >= 3
        assert set(device.n_bytes_when_emptied) == {weights}
        assert device.n_bytes == weights
        assert_equal_within_a_step(found, expected)


def test_one_sample_that_does_not_fit_is_said_clearly(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(resolved)
    heads = [replace(head, coder=coder.to(CUDA)) for head in heads_of(model, coder)]
    device.capacity = device.n_bytes + 4000
    tried = tried_batches(monkeypatch)
    with pytest.raises(InputError, match="too little memory for one sample") as error:
        represent_heads(SAMPLES, model, heads)
    assert [len(rows) for rows in tried] == [9, 4, 2, 1]
    assert "Lower max_length" in str(error.value)


# A pool on the device.


def small_pool(root: Path, paths: Paths, **model: Any) -> tuple[Representer, RenderedPool]:
    """Sixty samples, in four units of at most 16."""
    where = {"name": str(paths[2]), "hookpoint": "resid@2", "dtype": "float32", **model}
    config = tiny_config(*paths, model=where)
    workspace = open_workspace(root)
    pool, model_input = prepare(config, workspace), open_model_input(config)
    rendered = render(workspace, pool, model_input)
    return open_representer(config, workspace, str(paths[3])), rendered


def embedded(root: Path, paths: Paths) -> tuple[Representer, SparseRows]:
    representer, rendered = small_pool(root, paths)
    assert embed_rendered([representer], rendered)["computed"] == rendered.n_usable
    return representer, rows_of(representer, rendered)


def rows_of(representer: Representer, rendered: RenderedPool) -> SparseRows:
    return open_shards(representer.folder).gather(rendered.keys()[rendered.usable()])


def plans_of(representer: Representer) -> list[str]:
    return sorted(str(shard.report["plan"]) for shard in open_shards(representer.folder).shards)


def failing_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The forward pass number `number` from now on finds no memory."""
    numbers, run = count(1), ActivationModel._run

    def once(self: ActivationModel, tokens: Any) -> Any:
        if next(numbers) == number:
            raise torch.OutOfMemoryError("no memory")
        return run(self, tokens)

    monkeypatch.setattr(ActivationModel, "_run", once)


def test_a_pool_embedded_on_the_device_has_the_vectors_of_the_cpu(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, expected = embedded(tmp_path / "here", paths)
    with fake_cuda(monkeypatch) as device:
        there, found = embedded(tmp_path / "there", paths)
        assert there.model.device == CUDA
    assert np.array_equal(found.indptr, expected.indptr)
    assert np.array_equal(found.latents, expected.latents)
    assert np.abs(found.values.astype(np.int64) - expected.values).max() <= 1
    assert here.unit == pytest.approx(there.unit, rel=1e-5)
    assert plans_of(there) == ["full"] * 4
    # The device is claimed before anything is on it. The SAE goes there to be measured, to be
    # calibrated, and once for all units together.
    assert device.chosen[0] == (0, 0)
    assert (there.workspace.leases / f"gpu-{UUID}.lock").exists()
    biases = [c for c in device.to_device() if c.shape == (TINY_N_LATENTS,)]
    assert len(biases) == 3


def test_a_unit_whose_batch_was_halved_is_marked_and_the_others_are_not(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_cuda(monkeypatch):
        _, expected = embedded(tmp_path / "whole", paths)
        representer, rendered = small_pool(tmp_path / "halved", paths)
        representer.calibration  # noqa: B018 - its passes are not those that fail
        with monkeypatch.context() as patch:
            failing_once(patch, 3)
            embed_rendered([representer], rendered)
        found = rows_of(representer, rendered)
    assert plans_of(representer) == ["full"] * 3 + ["reduced"]
    assert representer.fixed_point_totals()["reduced_units"] == 1
    assert np.array_equal(found.latents, expected.latents)
    assert np.abs(found.values.astype(np.int64) - expected.values).max() <= 1


def test_a_pool_that_stopped_for_lack_of_memory_goes_on_where_it_was(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_cuda(monkeypatch) as device:
        _, expected = embedded(tmp_path / "whole", paths)
        representer, rendered = small_pool(tmp_path / "stopped", paths)
        representer.calibration, representer.coder_there  # noqa: B018 - on the device already
        device.capacity = device.n_bytes + 1000
        with pytest.raises(InputError, match="too little memory for one sample"):
            embed_rendered([representer], rendered)
        assert not len(open_shards(representer.folder))
        assert not list(representer.folder.rglob("*.lease"))
        device.capacity = None
        embed_rendered([representer], rendered)
        found = rows_of(representer, rendered)
    assert plans_of(representer) == ["full"] * 4
    assert found.values.tobytes() == expected.values.tobytes()


def test_weights_that_do_not_fit_are_said_clearly(
    tmp_path: Path, paths: Paths, resolved: ResolvedModel, device: FakeCuda
) -> None:
    device.capacity = 10_000
    with pytest.raises(InputError, match="memory for the weights of the model"):
        loaded(resolved)
    device.capacity = None
    representer, _ = small_pool(tmp_path, paths)
    representer.model  # noqa: B018 - fits
    device.capacity = device.n_bytes + 10_000
    with pytest.raises(InputError, match="memory for the weights of the SAE"):
        representer.coder_there  # noqa: B018 - does not


def test_a_device_is_claimed_only_where_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_device(tmp_path / "none", "auto")  # there is none
    with fake_cuda(monkeypatch) as device:
        claim_device(tmp_path / "cpu", "cpu")
        assert not device.chosen
        for name in ("cuda", "auto"):
            claim_device(tmp_path / name, name)
        assert [number for number, _ in device.chosen] == [0, 0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["auto", "cuda"]


def test_vectors_of_the_device_and_of_the_cpu_are_kept_apart_by_their_dtype(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` is another dtype on either, so neither run takes the other's vectors for its own."""
    here, _ = small_pool(tmp_path, paths, dtype="auto")
    assert here.representation_id
    with fake_cuda(monkeypatch):
        there, _ = small_pool(tmp_path, paths, dtype="auto")
        assert there.unit == here.unit  # measured once
        assert there.representation_id != here.representation_id


# bfloat16, the device's dtype, beside float32; on the CPU, whose bfloat16 has the same bits.


def in_both_dtypes(
    model: ResolvedModel, coder: SparseCoder, samples: list[Rendered]
) -> tuple[SparseRows, SparseRows]:
    """Vectors in bfloat16 and in float32, in the unit of the latter."""
    place = parse_hookpoint("resid@2", model.n_layers)
    full, short = (
        load_activation_model(model, place, "cpu", dtype) for dtype in ("float32", "bfloat16")
    )
    unit = calibrate_head(samples, full, Head(place, coder, "max")).unit
    head = Head(place, coder, "max", unit)
    [(expected, _)] = represent_heads(samples, full, [head])
    [(found, _)] = represent_heads(samples, short, [head])
    return found, expected


def support_jaccard(found: SparseRows, expected: SparseRows) -> float:
    """Mean over samples: latents that are in both vectors over those in either."""
    a, b = to_dense(found) > 0, to_dense(expected) > 0
    return float(((a & b).sum(1) / (a | b).sum(1)).mean())


def scores_of(rows: SparseRows, n_exemplars: int) -> NDArray[np.float64]:
    """Mean generalized Jaccard of the later rows with the first ones."""
    exemplars = take(rows, np.arange(n_exemplars))
    block = exemplar_queries(exemplars, np.ones(rows.n_latents, np.int64), "mean")
    return score(take(rows, np.arange(n_exemplars, len(rows))), block)


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    first, second = (np.argsort(np.argsort(values)) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def test_bfloat16_agrees_with_float32_on_a_model_of_random_weights(
    resolved: ResolvedModel, coder: SparseCoder
) -> None:
    samples = [sample(n, seed) for seed, n in enumerate(range(20, 60))]
    found, expected = in_both_dtypes(resolved, coder, samples)
    assert 0.95 < support_jaccard(found, expected) < 1  # measured: 0.982
    assert spearman(scores_of(found, 5), scores_of(expected, 5)) > 0.95  # measured: 0.988


def test_bfloat16_agrees_with_float32_on_the_demo_model() -> None:
    model = resolve_model(str(DEMO / "model"))
    config = resolve(
        {
            "pool": "none",
            "exemplars": "none",
            "budget": {"examples": 1},
            "model": str(DEMO / "model"),
            "sae": str(DEMO / "sae" / "layers.2"),
        }
    )
    samples = calibration_samples(config, model)[:40]
    found, expected = in_both_dtypes(model, load_sae(DEMO / "sae" / "layers.2"), samples)
    assert 0.95 < support_jaccard(found, expected) < 1  # measured: 0.979
    assert spearman(scores_of(found, 5), scores_of(expected, 5)) > 0.99  # measured: 0.999
