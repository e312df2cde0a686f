from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.quality import measure
from selection.sae.training.settings import StepMetrics, TrainReport, TrainSettings
from selection.sae.training.step import Parameters, loss_and_gradient
from selection.sae.training.train import shuffled, steps_done, train_sae
from selection.sae.training.trainer import Trainer

D, M, K = 12, 40, 3


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def parameters(generator: torch.Generator) -> Parameters:
    return Parameters(
        torch.randn(M, D, generator=generator),
        0.1 * torch.randn(M, generator=generator),
        torch.randn(M, D, generator=generator),
        torch.randn(D, generator=generator),
    )


def by_autograd(p: Parameters, x: Tensor, dead: Tensor, alpha: float) -> tuple[float, Parameters]:
    """The loss by its definition, with dense latents, in float64."""
    w_enc, b_enc, w_dec, b_dec = (t.double().requires_grad_() for t in p.tensors())
    x = x.double()
    pre = torch.relu((x - b_dec) @ w_enc.T + b_enc)
    kept = torch.zeros_like(pre).scatter(1, pre.topk(K, dim=1).indices, 1.0)
    error = (pre * kept) @ w_dec + b_dec - x
    variance = (x - x.mean(0)).square().sum()
    loss = error.square().sum() / variance
    n_dead = int(dead.sum())
    if n_dead and alpha:
        k_aux = min(D // 2, n_dead)
        scale = min(1.0, n_dead / (D // 2))
        candidates = torch.where(dead, pre, -torch.inf)
        strongest = torch.zeros_like(pre).scatter(1, candidates.topk(k_aux, dim=1).indices, 1.0)
        missing = (pre * strongest) @ w_dec + error.detach()
        loss = loss + alpha * scale * missing.square().sum() / variance
    loss.backward()
    gradients = [t.grad for t in (w_enc, b_enc, w_dec, b_dec)]
    return float(loss.detach()), Parameters(*(g for g in gradients if g is not None))


@pytest.mark.parametrize("n_dead", [0, 2, 20])
@pytest.mark.parametrize("n", [1, 300])  # 300 rows are more than one chunk
def test_the_gradient_is_that_of_the_loss(n: int, n_dead: int, generator: torch.Generator) -> None:
    p, x = parameters(generator), torch.randn(n, D, generator=generator) + 1
    if n == 1:
        x = torch.cat([x, x + 1])  # one row has no variance
    dead = torch.zeros(M, dtype=torch.bool)
    dead[torch.randperm(M, generator=generator)[:n_dead]] = True
    loss, expected = by_autograd(p, x, dead, 0.3)
    found = loss_and_gradient(p, x, K, dead, 0.3)
    assert found.fvu + 0.3 * found.auxk == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(found.gradient.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)


def test_auxk_reaches_the_encoder_rows_of_dead_latents_and_of_no_others(
    generator: torch.Generator,
) -> None:
    p, x = parameters(generator), torch.randn(200, D, generator=generator)
    dead = torch.zeros(M, dtype=torch.bool)
    dead[:5] = True
    p.b_enc[:5] = 0.0
    p.w_enc[:5] *= 1e-3  # too weak for the top k, so only AuxK can reach them
    without = loss_and_gradient(p, x, K, dead, 0.0)
    assert not without.gradient.w_enc[:5].any()
    found = loss_and_gradient(p, x, K, dead, 1 / 32)
    assert (found.gradient.w_enc[:5].norm(dim=1) > 0).all()
    assert (found.gradient.w_dec[:5].norm(dim=1) > 0).all()
    assert (found.gradient.b_enc[:5] != 0).all()
    torch.testing.assert_close(found.gradient.w_enc[5:], without.gradient.w_enc[5:])


def test_latents_fired_only_where_an_act_is_positive(generator: torch.Generator) -> None:
    p, x = parameters(generator), torch.randn(50, D, generator=generator)
    p.b_enc.fill_(-100.0)
    p.b_enc[7] = 100.0
    found = loss_and_gradient(p, x, K, torch.zeros(M, dtype=torch.bool), 0.0)
    assert found.live.nonzero().flatten().tolist() == [7]
    assert found.l0 == 1.0
    assert found.gradient.w_enc.norm(dim=1).nonzero().flatten().tolist() == [7]


def sparse_data(
    n_batches: int, seed: int = 3, d_in: int = D, n_directions: int = 20
) -> list[Tensor]:
    """Sums of two of some directions, off center: what an SAE can learn."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(
        torch.randn(n_directions, d_in, generator=generator), dim=1
    )
    batches = []
    for _ in range(n_batches):
        chosen = torch.rand(256, n_directions, generator=generator).argsort(1)[:, :2]
        acts = 1 + torch.rand(256, 2, generator=generator)
        batches.append(50 * (directions[chosen] * acts[:, :, None]).sum(1) + 100)
    return batches


def settings_of(n_steps: int = 1, **more: Any) -> TrainSettings:
    """Of a short training on batches of 256."""
    size = {"num_latents": M, "k": K, "batch_tokens": 256, "tokens": 256 * n_steps}
    return TrainSettings.model_validate({**size, **more})


def train(
    batches: list[Tensor], n_steps: int, options: Mapping[str, Any] | None = None, **more: Any
) -> tuple[list[Tensor], TrainReport]:
    coder, report = train_sae(batches, settings_of(n_steps, **more), **(options or {}))
    weights = [coder.encoder_weight, coder.encoder_bias, coder.decoder_weight, coder.decoder_bias]
    return weights, report


def test_fvu_falls_on_data_that_is_sparse() -> None:
    seen: list[StepMetrics] = []
    weights, report = train(sparse_data(400), 400, {"on_step": seen.append}, learning_rate=5e-3)
    assert seen[0].fvu > 0.4
    assert report.fvu < 0.1
    assert report.n_tokens == 400 * 256
    torch.testing.assert_close(weights[2].norm(dim=1), torch.ones(M))
    assert [m.step for m in seen] == list(range(1, 401))
    assert seen[0].lr < seen[50].lr > seen[-1].lr > 0


def test_the_coder_reconstructs_activations_as_they_come() -> None:
    from selection.sae.encode import decode, encode

    coder, report = train_sae(sparse_data(400), settings_of(400, learning_rate=5e-3))
    coder = coder.trained_on("org/tiny", "ab", "layers.2")
    (x,) = sparse_data(1, seed=3)
    error = (decode(coder, encode(coder, x)) - x).square().sum()
    assert float(error / (x - x.mean(0)).square().sum()) < 0.1
    assert (coder.k, coder.info.hookpoint, coder.info.num_latents) == (K, "layers.2", M)
    assert report.l0 <= K


def test_an_interrupted_training_ends_in_the_same_bytes(tmp_path: Path) -> None:
    batches, file, seen = sparse_data(60), tmp_path / "checkpoint.pt", list[StepMetrics]()
    settings = {"num_latents": 400, "learning_rate": 5e-3, "dead_after_tokens": 512}
    whole, whole_report = train(batches, 60, {"on_step": seen.append}, **settings)
    assert seen[36].n_dead > 0  # what counts as dead must survive the interruption, too

    def stop(metrics: StepMetrics) -> None:
        if metrics.step == 37:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            batches, 60, {"checkpoint": file, "checkpoint_every": 10, "on_step": stop}, **settings
        )
    assert steps_done(file) == 30
    resumed, report = train(batches, 60, {"checkpoint": file}, **settings)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert replace(report, seconds=whole_report.seconds) == whole_report


def test_the_scale_of_training_is_folded_back(generator: torch.Generator) -> None:
    (x,) = sparse_data(1)
    settings = settings_of(
        10, learning_rate=1e-2, warmup_steps=1, auxk_alpha=0.0, dead_after_tokens=1000
    )
    trainer = Trainer(settings, x)
    trainer.parameters.b_enc.copy_(torch.rand(M, generator=generator))
    dead = torch.zeros(M, dtype=torch.bool)
    inside = loss_and_gradient(trainer.parameters, x * trainer.scale, K, dead, 0.0)
    outside = measure(trainer.coder(), [x])
    assert abs(trainer.scale - 1) > 0.5
    assert outside.fvu == pytest.approx(inside.fvu, rel=1e-4)
    assert outside.l0 == pytest.approx(inside.l0)


def test_decoder_rows_are_not_pushed_along_themselves() -> None:
    (x,) = sparse_data(1)
    trainer = Trainer(
        settings_of(10, learning_rate=1e-2, warmup_steps=1, auxk_alpha=0.0),
        x,
    )
    before = trainer.parameters.w_dec.clone()
    trainer.step(x)
    momentum = trainer.adam.state[trainer.parameters.w_dec]["exp_avg"]
    assert momentum.norm() > 1e-3
    torch.testing.assert_close((momentum * before).sum(1), torch.zeros(M), atol=1e-6, rtol=0)


def test_the_caller_may_leave_out_the_batches_that_are_used(tmp_path: Path) -> None:
    batches, file = sparse_data(40), tmp_path / "checkpoint.pt"
    whole, _ = train(batches, 40)
    half, _ = train(batches[:20], 40, {"checkpoint": file})
    assert not torch.equal(half[0], whole[0])
    done = steps_done(file)
    rest, _ = train(batches[done:], 40, {"checkpoint": file, "batches_skipped": done})
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    file, seen = tmp_path / "checkpoint.pt", list[StepMetrics]()
    whole, _ = train(sparse_data(5), 5, {"checkpoint": file})
    again, _ = train(sparse_data(5), 5, {"checkpoint": file, "on_step": seen.append})
    assert not seen
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    train(sparse_data(3), 3, {"checkpoint": tmp_path / "c.pt"})
    with pytest.raises(InputError, match=r"c\.pt.*other settings \(learning_rate, seed\)"):
        train(sparse_data(3), 3, {"checkpoint": tmp_path / "c.pt"}, seed=1, learning_rate=1.0)
    (tmp_path / "c.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        train(sparse_data(3), 3, {"checkpoint": tmp_path / "c.pt"})


def test_auxk_brings_dead_latents_back_where_something_is_left_to_explain() -> None:
    def trained(auxk_alpha: float) -> tuple[float, float]:
        settings = settings_of(
            300,
            num_latents=64,
            learning_rate=5e-3,
            warmup_steps=1,
            auxk_alpha=auxk_alpha,
            dead_after_tokens=2048,
        )
        batches = sparse_data(300, d_in=32, n_directions=40)
        trainer = Trainer(settings, batches[0])
        trainer.parameters.b_enc[12:] = -2.0  # 12 latents live, 40 directions are to be found
        for batch in batches:
            trainer.step(batch)
        report = trainer.report(seconds=0.0)
        return report.dead_share, report.fvu

    (dead_with, fvu_with), (dead_without, fvu_without) = trained(1 / 32), trained(0.0)
    assert dead_with < dead_without
    assert fvu_with < 0.5 * fvu_without


def test_massive_and_broken_tokens_are_left_out_and_counted() -> None:
    clean = sparse_data(20)
    spoiled = [torch.cat([batch, torch.full((1, D), 1e6)]) for batch in clean]
    spoiled[3] = torch.cat([spoiled[3], torch.full((2, D), float("nan"))])
    spoiled[0] = clean[0]  # the first batch sets center and scale
    weights, report = train(spoiled, 20)
    expected, _ = train(clean, 20)
    assert report.n_skipped_tokens == 19 + 2
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))


def test_training_needs_activations_of_the_right_width() -> None:
    with pytest.raises(InputError, match="no activations"):
        train([], 3)
    with pytest.raises(ValueError, match="expected \\(n, 12\\)"):
        train([torch.zeros(5, D), torch.zeros(5, D + 1)], 3)
    with pytest.raises(ValueError, match="k is 41"):
        settings_of(k=41)


def test_tokens_become_full_steps(caplog: pytest.LogCaptureFixture) -> None:
    assert settings_of(tokens=256 * 4 + 255).n_steps == 4
    assert settings_of(tokens=5).n_steps == 1
    _, report = train_sae(sparse_data(2), settings_of(5))
    assert report.n_steps == 2
    assert "ended after 2 of 5" in caplog.text


def test_shuffling_gives_every_token_once_in_full_batches() -> None:
    stream = torch.arange(1000).reshape(-1, 1)
    sizes = [7, 130, 1, 500, 362]
    out = list(shuffled(stream.split(sizes), batch_tokens=32, buffer_tokens=200, seed=0))
    assert all(len(batch) == 32 for batch in out)
    seen = torch.cat(out).flatten().tolist()
    assert len(set(seen)) == len(seen) == 1000 // 32 * 32
    assert seen != sorted(seen)
    again = list(shuffled(stream.split(sizes), batch_tokens=32, buffer_tokens=200, seed=0))
    assert np.array_equal(torch.cat(again).numpy(), torch.cat(out).numpy())
