"""What a run on CUDA does otherwise than one on the CPU, on a device made of the CPU's memory."""

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.config.load import resolve
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import open_model_input, render
from flows.stages.represent import devices
from flows.stages.represent.calibration import calibration_samples, measure_sae
from flows.stages.represent.devices import claim_device
from flows.stages.represent.representer import Representer, open_representer
from flows.stages.represent.units import embed_rendered
from selection.activations.model import ActivationModel, load_activation_model
from selection.core.errors import InputError
from selection.core.sparse import take, to_dense
from selection.models.hookpoints import parse_hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered, SparseRows
from selection.representation.heads import Head
from selection.representation.represent import calibrate_head, represent_heads
from selection.sae.coder import SparseCoder
from selection.sae.formats.load import load_sae
from selection.similarity.queries import exemplar_queries, score
from storage.files.workspace import open_workspace
from storage.pools.renderings import RenderedPool
from storage.pools.shards import open_shards
from tests.conftest import Paths
from tests.cuda_cases import DEMO, coder, device, loaded, resolved, sample
from tests.fake_cuda import CUDA, UUID, FakeCuda, fake_cuda
from tests.run_stages import tiny_config
from tests.tiny_model import TINY_N_LATENTS

__all__ = ["coder", "device", "resolved"]  # fixtures


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "LOCKS", tmp_path / "gpus")


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
    assert (devices.LOCKS / f"gpu-{UUID}.lock").exists()
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
        representer.calibration, representer.coder_on_device  # noqa: B018 - on the device already
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
        representer.coder_on_device  # noqa: B018 - does not


def test_a_device_is_claimed_only_where_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    claim_device("auto")  # there is none
    with fake_cuda(monkeypatch) as device:
        claim_device("cpu")
        assert not device.chosen
        assert not devices.LOCKS.exists()
        for name in ("cuda", "auto"):
            claim_device(name)
        assert [number for number, _ in device.chosen] == [0, 0]
    assert [file.name for file in devices.LOCKS.iterdir()] == [f"gpu-{UUID}.lock"]
    assert devices.LOCKS.stat().st_mode & 0o7777 == 0o1777


def test_the_check_of_an_sae_halves_a_batch_that_does_not_fit(
    resolved: ResolvedModel, coder: SparseCoder, device: FakeCuda
) -> None:
    """Its encoding and its sums are inside, and a batch that failed adds nothing."""
    model, samples = loaded(resolved), [sample(40, seed) for seed in range(16)]
    place = model.hookpoints[1]
    there = coder.to(CUDA)
    expected = measure_sae(there, model, samples, None, place)
    assert not model.plan_reduced
    before = device.n_bytes
    device.capacity = device.peak - 10_000
    found = measure_sae(there, model, samples, None, place)
    assert model.plan_reduced
    assert device.n_bytes == before
    assert found.n_tokens == expected.n_tokens
    assert (found.l0, found.dead_share) == (expected.l0, expected.dead_share)
    assert found.fvu == pytest.approx(expected.fvu)


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
