"""BatchTopK and Matryoshka training, k annealing, and what is written at the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selection.sae.encode import encode
from selection.sae.quality import measure
from selection.sae.training.settings import StepMetrics
from selection.sae.training.step import Parameters, loss_and_gradient
from selection.sae.training.train import train_sae
from tests.test_sae_training import settings_of

D, M, K = 12, 40, 3
WIDTHS = (5, 20, M)
ARCHITECTURES: dict[str, Mapping[str, Any]] = {
    "topk": {"architecture": "topk"},
    "batchtopk": {"architecture": "batchtopk"},
    "matryoshka": {"architecture": "matryoshka", "widths": (80, 400)},
    "annealed": {"architecture": "batchtopk", "k_start": 12, "k_anneal_share": 0.5},
    "pursuit": {"architecture": "matching_pursuit", "residual_threshold": 0.1},
}


def parameters(seed: int = 0) -> Parameters:
    g = torch.Generator().manual_seed(seed)
    shapes = ((M, D), (M,), (M, D), (D,))
    return Parameters(*(torch.randn(shape, generator=g) for shape in shapes))


def by_autograd(
    p: Parameters, x: Tensor, dead: Tensor, alpha: float, widths: tuple[int, ...]
) -> tuple[float, list[Tensor]]:
    """The loss by its definition, with dense latents, in float64; widths are summed."""
    w_enc, b_enc, w_dec, b_dec = (t.double().requires_grad_() for t in p.tensors())
    x = x.double()
    pre = torch.relu((x - b_dec) @ w_enc.T + b_enc)
    cut = pre.flatten().topk(K * len(x)).values.min()
    acts = pre * (pre >= cut)
    variance = (x - x.mean(0)).square().sum()
    losses = []
    for width in widths:
        first = torch.arange(M) < width
        error = (acts * first) @ w_dec + b_dec - x
        losses.append(error.square().sum() / variance)
    loss = torch.stack(losses).sum()
    if dead.any() and alpha:
        k_aux, n_dead = min(D // 2, int(dead.sum())), int(dead.sum())
        candidates = torch.where(dead, pre, -torch.inf)
        kept = torch.zeros_like(pre).scatter(1, candidates.topk(k_aux, dim=1).indices, 1.0)
        miss = (pre * kept) @ w_dec + error.detach()
        loss = loss + alpha * min(1.0, n_dead / (D // 2)) * miss.square().sum() / variance
    loss.backward()
    return float(loss.detach()), [
        t.grad for t in (w_enc, b_enc, w_dec, b_dec) if t.grad is not None
    ]


@pytest.mark.parametrize("widths", [(M,), WIDTHS])
@pytest.mark.parametrize("n_dead", [0, 2, 20])
@pytest.mark.parametrize("n", [7, 300])  # 300 rows are more than one chunk
def test_the_gradient_is_that_of_the_loss(n: int, n_dead: int, widths: tuple[int, ...]) -> None:
    p = parameters()
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(1)) + 1
    dead = torch.zeros(M, dtype=torch.bool)
    dead[torch.randperm(M, generator=torch.Generator().manual_seed(2))[:n_dead]] = True
    loss, expected = by_autograd(p, x, dead, 0.3, widths)
    found = loss_and_gradient(p, x, K, dead, 0.3, per_batch=True,
                              widths=() if widths == (M,) else widths)  # fmt: skip
    assert found.loss == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(found.gradient.tensors(), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)
    assert found.l0 == pytest.approx(K)


def test_auxk_reaches_the_encoder_rows_of_dead_latents_in_every_architecture() -> None:
    p, x = parameters(), torch.randn(200, D, generator=torch.Generator().manual_seed(3))
    dead = torch.zeros(M, dtype=torch.bool)
    dead[:5] = True
    p.b_enc[:5] = 0.0
    p.w_enc[:5] *= 1e-3  # too weak to be chosen, so only AuxK can reach them
    for widths in ((), WIDTHS):
        without = loss_and_gradient(p, x, K, dead, 0.0, per_batch=True, widths=widths)
        assert not without.gradient.w_enc[:5].any()
        found = loss_and_gradient(p, x, K, dead, 1 / 32, per_batch=True, widths=widths)
        assert (found.gradient.w_enc[:5].norm(dim=1) > 0).all()
        torch.testing.assert_close(found.gradient.w_enc[5:], without.gradient.w_enc[5:])


def sparse_data(n_batches: int) -> list[Tensor]:
    """Sums of one to three of some directions, off center: tokens differ in what they need."""
    g = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(20, D, generator=g), dim=1)
    batches = []
    for _ in range(n_batches):
        order = torch.rand(256, 20, generator=g).argsort(1)
        n = torch.randint(1, 4, (256, 1), generator=g)
        acts = (order < n) * (1 + torch.rand(256, 20, generator=g))
        batches.append(50 * acts @ directions + 100)
    return batches


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka"])
def test_batchtopk_ends_as_an_sae_with_a_threshold(name: str) -> None:
    more = {"widths": (8, M)} if name == "matryoshka" else {}
    coder, report = train_sae(
        sparse_data(300),
        settings_of(300, learning_rate=5e-3, architecture=name, **more),
    )
    assert (coder.info.activation, coder.k, coder.info.expected_l0) == ("jumprelu", 0, K)
    assert coder.threshold is not None
    assert report.threshold is not None
    assert report.threshold > 0
    assert torch.equal(coder.threshold, torch.full((M,), report.threshold))
    x = torch.cat(sparse_data(310)[300:])  # not trained on
    found = measure(coder, [x])
    assert found.l0 == pytest.approx(K, rel=0.05)  # on average: tokens differ
    counts = (encode(coder, x).top_acts > 0).sum(1)
    assert counts.min() < counts.max()
    assert (found.fvu or 0) < 0.25
    assert report.fvu < 0.25


def test_the_first_latents_of_a_matryoshka_sae_are_an_sae_of_their_own() -> None:
    def fvu_of_first(name: str, **more: Any) -> float:
        coder, _ = train_sae(
            sparse_data(300), settings_of(300, learning_rate=5e-3, architecture=name, **more)
        )
        (x,) = sparse_data(1)
        found = encode(coder, x)
        acts = found.top_acts * (found.top_indices < 10)
        dense = torch.zeros(len(x), M).scatter_add_(1, found.top_indices, acts)
        error = dense @ coder.decoder_weight + coder.decoder_bias - x
        return float(error.square().sum() / (x - x.mean(0)).square().sum())

    assert fvu_of_first("matryoshka", widths=(10, M)) < 0.8 * fvu_of_first("batchtopk")


def test_k_falls_from_its_start_to_its_end() -> None:
    settings = settings_of(100, k=4, k_start=20, k_anneal_share=0.5)
    seen = [settings.k_at(step) for step in range(1, 101)]
    assert seen[0] == 20
    assert seen[:50] == sorted(seen[:50], reverse=True)
    assert set(seen[50:]) == {4}
    assert settings.model_copy(update={"k_start": None}).k_at(1) == 4
    l0: list[float] = []
    train_sae(
        sparse_data(20),
        settings_of(20, k=2, k_start=10, k_anneal_share=0.5),
        on_step=lambda m: l0.append(m.l0),
    )
    assert l0[0] > 5 > l0[-1]


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_an_interrupted_training_ends_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    batches = sparse_data(40)
    settings = settings_of(
        40, num_latents=400, learning_rate=5e-3, dead_after_tokens=512, **ARCHITECTURES[name]
    )
    whole, report = train_sae(batches, settings)

    def stop(metrics: StepMetrics) -> None:
        if metrics.step == 27:
            raise KeyboardInterrupt

    file = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        train_sae(batches, settings, checkpoint=file, checkpoint_every=10, on_step=stop)
    again, second = train_sae(batches, settings, checkpoint=file)
    assert again.info.sha256 == whole.info.sha256
    assert replace(second, seconds=report.seconds) == report
    other, _ = train_sae(batches, settings.model_copy(update={"seed": 1}))
    assert other.info.sha256 != whole.info.sha256


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.test_sae_training_architectures import sparse_data
from tests.test_sae_training import settings_of
from selection.sae.training.train import train_sae
def kill(metrics):
    if metrics.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
settings = settings_of(12, num_latents=80, architecture=sys.argv[3])
coder, _ = train_sae(sparse_data(12), settings, checkpoint=Path(sys.argv[1]),
                     checkpoint_every=4, on_step=kill)
print(coder.info.sha256)
"""


@pytest.mark.parametrize("architecture", ["batchtopk", "seminmf", "matching_pursuit", "codebook"])
def test_a_training_killed_at_once_is_continued_to_the_same_bytes(
    architecture: str, tmp_path: Path
) -> None:
    def run(file: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(file), str(kill_at), architecture],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )

    whole = run(tmp_path / "whole.pt", 0)
    assert run(tmp_path / "killed.pt", 7).returncode == -signal.SIGKILL
    again = run(tmp_path / "killed.pt", 0)
    assert whole.returncode == again.returncode == 0, again.stderr
    assert again.stdout == whole.stdout
    assert len(whole.stdout.strip()) == 64


def test_the_curve_tells_how_it_went_and_has_a_bounded_length() -> None:
    _, report = train_sae(sparse_data(250), settings_of(250, learning_rate=5e-3))
    assert 100 <= len(report.curve) <= 201
    steps, fvu = [p[0] for p in report.curve], [p[1] for p in report.curve]
    assert steps[0] == 1
    assert steps == sorted(steps)
    assert fvu[0] > 3 * fvu[-1]
    assert report.input_scale != 1.0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"architecture": "jumprelu"}, "Input should be"),
        ({"widths": (4, M)}, "are for matryoshka"),
        ({"residual_threshold": 0.1}, "`residual_threshold` is for matching_pursuit, not for topk"),
        ({"architecture": "matching_pursuit", "residual_threshold": 1}, "less than 1"),
        ({"architecture": "matryoshka", "widths": (20, 10, M)}, "must rise"),
        ({"architecture": "matryoshka", "widths": (10, M - 1)}, "must rise"),
    ],
)
def test_contradictory_settings_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(**more)
