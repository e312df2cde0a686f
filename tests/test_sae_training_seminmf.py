"""Training of a semi-NMF: planted parts, an error that never rises, resuming, and its settings."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import normalize

from selection.core.errors import InputError
from selection.sae.encode import encode
from selection.sae.quality import measure
from selection.sae.training.seminmf import SemiNmfTrainer, batch_codes, improve_parts
from selection.sae.training.settings import StepMetrics, TrainSettings
from selection.sae.training.step import ByLatent
from selection.sae.training.train import steps_done, train_sae

D, M, K, N = 32, 20, 3, 256


def planted(n_batches: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Parts (M, D) of mixed signs, and positive sums of K of them with a little noise."""
    g = torch.Generator().manual_seed(seed)
    parts, batches = normalize(torch.randn(M, D, generator=g), dim=1), []
    for _ in range(n_batches):
        codes = torch.zeros(N, M)
        chosen = torch.rand(N, M, generator=g).topk(K, dim=1).indices
        codes.scatter_(1, chosen, 0.3 + torch.rand(N, K, generator=g))
        batches.append(codes @ parts + 0.02 * torch.randn(N, D, generator=g))
    return parts, batches


def settings_of(n_steps: int, **more: Any) -> TrainSettings:
    size = {"num_latents": 2 * M, "k": K, "batch_tokens": N, "tokens": N * n_steps}
    return TrainSettings.model_validate({"architecture": "seminmf", **size, **more})


def test_planted_parts_are_found() -> None:
    parts, batches = planted(31)
    coder, report = train_sae(batches[:-1], settings_of(30))
    cosines = parts @ coder.decoder_weight.T
    assert cosines.amax(1).min() > 0.98
    assert cosines.amax(1).argsort().unique().numel() == M
    torch.testing.assert_close(coder.decoder_weight.norm(dim=1), torch.ones(2 * M))
    assert torch.equal(coder.encoder_weight, coder.decoder_weight)
    assert not coder.decoder_bias.any()
    assert not coder.encoder_bias.any()
    quality = measure(coder, batches[-1:])
    assert quality.fvu is not None
    assert quality.fvu < 0.06
    assert quality.l0 == pytest.approx(report.l0, abs=0.2)
    assert coder.info.declared_l0 == report.l0
    assert [point[1] for point in report.curve][-1] < 0.1 < report.curve[0][1]
    assert (encode(coder, batches[-1]).top_acts >= 0).all()


def test_a_pass_over_the_parts_never_raises_the_error() -> None:
    parts, [x] = planted(1)
    parts = normalize(parts + 0.5 * torch.randn(M, D, generator=torch.Generator().manual_seed(1)))
    parts = torch.cat([parts, torch.ones(50, D)])  # more than one block; some are not used
    _, (values, latents) = batch_codes(x, parts, K)
    codes = torch.zeros(N, len(parts)).scatter_(1, latents, values)
    gram, cross = codes.T @ codes, codes.T @ x
    by_latent = ByLatent(latents, len(parts))
    torch.testing.assert_close(by_latent.sums(values, codes), gram)
    torch.testing.assert_close(by_latent.sums(values, x), cross)
    unused, errors = gram.diagonal() == 0, []
    kept = parts[unused].clone()
    for _ in range(30):
        errors.append(float((x - codes @ parts).square().sum()))
        improve_parts(parts, gram, cross)
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(errors))
    best = torch.linalg.lstsq(codes.double(), x.double(), driver="gelsd").solution
    assert errors[-1] == pytest.approx(float((x - codes.double() @ best).square().sum()), rel=1e-3)
    assert errors[-1] < 0.7 * errors[0]
    assert unused.any()
    assert torch.equal(parts[unused], kept)


def test_each_step_lowers_the_error_of_its_own_batch() -> None:
    """Without a past, codes and parts in turn are plain semi-NMF: its objective falls."""
    _, [x] = planted(1)
    trainer = SemiNmfTrainer(settings_of(8), x)
    fvus = []
    for _ in range(8):
        trainer.gram.zero_(), trainer.cross.zero_()
        fvus.append(trainer.step(x).fvu)
    assert fvus[-1] < 0.5 * fvus[0]
    assert all(after < before * 1.02 for before, after in pairwise(fvus))


def test_the_sums_forget_codes_of_old_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    _, batches = planted(5)
    trainer = SemiNmfTrainer(settings_of(5, max_norm_ratio=1e6), batches[0])
    trainer.step(batches[0])
    assert float(trainer.gram.diagonal().sum()) > 0
    before = trainer.gram.clone()
    monkeypatch.setattr(trainer, "_unit_norm", lambda: None)
    trainer.step(torch.zeros(N, D))  # codes of nothing: the old sums count (1 - 1/2)^2
    torch.testing.assert_close(trainer.gram, before / 4)


def test_the_sums_are_of_codes_for_parts_of_norm_1() -> None:
    _, [x] = planted(1)
    trainer = SemiNmfTrainer(settings_of(1), x)
    start = trainer.parameters.w_dec.clone()
    trainer.step(x)
    _, (values, latents) = batch_codes(x * trainer.scale, start, K)
    codes = torch.zeros(N, 2 * M).scatter_(1, latents, values)
    parts = start.clone()
    improve_parts(parts, codes.T @ codes, codes.T @ (x * trainer.scale))
    codes = codes * parts.norm(dim=1)
    torch.testing.assert_close(trainer.gram, codes.T @ codes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(trainer.cross, codes.T @ (x * trainer.scale), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(trainer.parameters.w_dec, normalize(parts, dim=1))


def test_dead_parts_start_anew_where_tokens_are_explained_least() -> None:
    _, batches = planted(3)
    trainer = SemiNmfTrainer(settings_of(3, dead_after_tokens=1), batches[0])
    odd = torch.zeros(D)
    odd[3] = -9.0  # one token points where no part does
    batches[1][7] = odd
    trainer.parameters.w_dec[5] = 0.0  # never used
    trainer.tokens_since_active[5] = 1
    trainer.step(batches[1])
    assert float(trainer.parameters.w_dec[5].norm()) == pytest.approx(1)
    assert float(trainer.parameters.w_dec[5] @ odd) > 0.9 * 9
    assert not trainer.gram[5].any()
    assert not trainer.gram[:, 5].any()
    assert not trainer.cross[5].any()
    assert int(trainer.tokens_since_active[5]) == N
    unused = trainer.dead().sum()
    trainer.step(odd.expand(N, D) + 0.1 * batches[2])
    assert int(trainer.tokens_since_active[5]) == 0
    assert unused < 2 * M


@pytest.mark.parametrize("stop", [1, 4])
def test_a_stopped_training_ends_in_the_same_bytes(tmp_path: Path, stop: int) -> None:
    _, batches = planted(8)
    settings = settings_of(8, dead_after_tokens=3 * N, k_start=6, k_anneal_share=0.5)
    whole, report = train_sae(batches, settings)
    file, seen = tmp_path / "training.pt", []

    def interrupt(metrics: StepMetrics) -> None:
        seen.append(metrics.step)
        if metrics.step == stop + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sae(batches, settings, checkpoint=file, checkpoint_every=stop, on_step=interrupt)
    assert steps_done(file) == stop
    coder, again = train_sae(batches, settings, checkpoint=file)
    assert coder.info.sha256 == whole.info.sha256
    assert (again.curve, again.l0, again.fvu) == (report.curve, report.l0, report.fvu)
    with pytest.raises(InputError, match="other settings"):
        train_sae(batches, settings_of(8, k=2), checkpoint=file)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"auxk_alpha": 0.5}, "without a gradient: leave out `auxk_alpha`"),
        ({"learning_rate": 1e-3}, "leave out `learning_rate`"),
        ({"warmup_steps": 5}, "leave out `warmup_steps`"),
        ({"decay_share": 0.5}, "leave out `decay_share`"),
        ({"widths": (5, 2 * M)}, "`widths` are for matryoshka"),
        ({"num_latents": 40_000}, "a square of num_latents"),
    ],
)
def test_settings_that_it_does_not_have_are_refused_by_name(
    given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings_of(1, **given)


def test_what_it_was_trained_with_can_be_given_again() -> None:
    settings = settings_of(4, k_start=8, k_anneal_share=0.5, max_norm_ratio=5.0, seed=3)
    whole = settings.model_dump()
    assert TrainSettings.model_validate(whole) == settings
    assert settings.resolved().learning_rate is None


def test_a_batch_smaller_than_the_parts_and_one_without_tokens_train() -> None:
    _, [x] = planted(1)
    coder, report = train_sae([x[:10], x[:0], x[10:]], settings_of(3))
    assert report.n_steps == 3
    assert torch.isfinite(coder.decoder_weight).all()
