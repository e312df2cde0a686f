"""Codebooks: what they encode, how they are trained and kept; planted clusters are found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import normalize

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder, card, make_coder, scaled_by_decoder_norm
from selection.sae.encode import chunk_rows, decode, encode
from selection.sae.formats.load import load_sae, read_sae_info
from selection.sae.formats.save import save_sparsify, save_trained
from selection.sae.metadata import SaeInfo
from selection.sae.quality import measure
from selection.sae.training.codebook import CodebookTrainer, codebook_gradient, in_groups
from selection.sae.training.settings import StepMetrics, TrainSettings
from selection.sae.training.step import Parameters
from selection.sae.training.train import steps_done, train_sae

D, M, K, N = 16, 24, 4, 256


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codebook(groups: int = 1, k: int = K, seed: int = 0) -> SparseCoder:
    codes = in_groups(drawn(M, D, seed=seed) * (0.5 + torch.arange(M)[:, None] / M), groups)
    info = SaeInfo("", "layers.4", D, M, k, "codebook", family="saelens", groups=groups)
    return make_coder(normalize(codes, dim=1), torch.zeros(M), codes, drawn(D, seed=5), info=info)


def dense(coder: SparseCoder, x: Tensor) -> Tensor:
    found = encode(coder, x)
    return torch.zeros(len(x), M).scatter_add_(1, found.top_indices, found.top_acts)


def slowly(coder: SparseCoder, x: Tensor) -> NDArray[np.float64]:
    """Token by token and group by group: 1 for the codes of highest cosine."""
    codes, center = coder.decoder_weight.double().numpy(), coder.decoder_bias.double().numpy()
    n_groups, found = coder.info.groups, np.zeros((len(x), M))
    for i, token in enumerate(x.double().numpy() - center):
        for group in range(n_groups):
            part = slice(group * D // n_groups, (group + 1) * D // n_groups)
            mine = range(group * M // n_groups, (group + 1) * M // n_groups)
            cosine = {
                j: codes[j, part] @ token[part] / np.linalg.norm(codes[j, part]) for j in mine
            }
            nearest = sorted(mine, key=lambda j: -cosine[j])
            found[i, nearest[: coder.k // n_groups]] = 1
    return found


@pytest.mark.parametrize("k", [K, 2 * K])
@pytest.mark.parametrize("groups", [1, 4])
def test_encode_equals_the_definition(groups: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    coder, x = codebook(groups, k), drawn(chunk_rows(M, torch.device("cpu")) // 128 + 300, D)
    expected = slowly(coder, x)
    np.testing.assert_array_equal(dense(coder, x), expected)
    assert encode(coder, x).top_acts.shape == (len(x), k)
    for size in (1, 7, 13):  # latents at once
        monkeypatch.setattr("selection.sae.encode._SLICE_LATENTS", size)
        np.testing.assert_array_equal(dense(coder, x), expected)
    rebuilt = torch.as_tensor(expected, dtype=torch.float32) @ coder.decoder_weight
    torch.testing.assert_close(decode(coder, encode(coder, x)), rebuilt + coder.decoder_bias)


def test_a_code_is_of_value_1_whatever_the_token_and_times_its_norm_where_scaled() -> None:
    coder, x = codebook(), drawn(50, D, seed=1)
    far = coder.decoder_bias + 50 * (x - coder.decoder_bias)
    assert torch.equal(dense(coder, far), dense(coder, x))
    against = encode(codebook(k=M), x)  # all codes: some point away from the token
    assert torch.equal(against.top_acts, torch.ones(50, M))
    scaled, norms = scaled_by_decoder_norm(coder), coder.decoder_weight.norm(dim=1)
    torch.testing.assert_close(dense(scaled, x), dense(coder, x) * norms)
    torch.testing.assert_close(decode(scaled, encode(scaled, x)), decode(coder, encode(coder, x)))
    for bad in (torch.nan, torch.inf):
        assert not torch.isfinite(encode(coder, torch.full((1, D), bad)).top_acts).all()
    assert encode(coder, x[:0]).top_acts.shape == (0, K)


@pytest.mark.parametrize("groups", [1, 4])
def test_it_is_saved_and_loaded_to_the_bit(groups: int, tmp_path: Path) -> None:
    coder, x = codebook(groups).trained_on("tiny", "ab" * 32, "layers.4"), drawn(50, D, seed=1)
    save_trained(coder, tmp_path / "sae", {})
    again, info = load_sae(tmp_path / "sae"), read_sae_info(tmp_path / "sae")
    assert again.info.sha256 == coder.info.sha256
    assert (info.activation, info.k, info.groups, info.expected_l0, info.hookpoint) == (
        "codebook", K, groups, K, "layers.4")  # fmt: skip
    for ours, theirs in zip(encode(again, x), encode(coder, x), strict=True):
        assert torch.equal(ours, theirs)
    parts = ", 1 in each of 4 parts" if groups == 4 else ""
    assert dict(card(again))["selection"] == f"the 4 nearest codes by cosine, of value 1{parts}"
    with pytest.raises(ValueError, match="sparsify format cannot hold"):
        save_sparsify(coder, tmp_path / "other")
    file = tmp_path / "sae" / "cfg.json"
    for wrong in (3, 0, "2"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"groups": wrong}))
        with pytest.raises(InputError) as refused:
            read_sae_info(tmp_path / "sae")
        assert refused.value.field == "groups"


def test_groups_are_part_of_the_id_and_ids_of_other_saes_stay() -> None:
    weights = torch.arange(12.0).view(4, 3) / 8, torch.arange(4.0), torch.ones(4, 3), torch.ones(3)
    info = {"path": "", "hookpoint": None, "d_in": 3, "num_latents": 4, "k": 2}
    shas = [
        make_coder(*weights, info=SaeInfo(**info, **more)).info.sha256  # type: ignore[arg-type]
        for more in ({}, {"activation": "codebook"}, {"activation": "codebook", "groups": 2})
    ]
    assert shas[0] == "e0b1a9b374480a3180a50f7060b670f4bd6f9dd7fd7cd881202c9c87bbfdd091"
    assert len(set(shas)) == 3


# Training.


def settings_of(n_steps: int, **more: Any) -> TrainSettings:
    size = {"num_latents": M, "k": K, "batch_tokens": N, "tokens": N * n_steps}
    return TrainSettings.model_validate({"architecture": "codebook", **size, **more})


def clusters(n_batches: int, n_clusters: int, d: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Centers, and batches of noisy tokens with their clusters, all off the origin."""
    g = torch.Generator().manual_seed(3)
    centers, batches = 5 * torch.randn(n_clusters, d, generator=g) + 20, []
    for _ in range(n_batches):
        which = torch.randint(n_clusters, (N,), generator=g)
        batches.append((which, centers[which] + torch.randn(N, d, generator=g)))
    return centers, batches


def assert_found(codes: Tensor, which: Tensor, centers: Tensor, rebuilt: Tensor) -> None:
    """Purity: of each code's tokens nearly all are of one cluster; and codes lie at the centers."""
    counts = torch.zeros(M, len(centers)).index_put_(
        (codes, which), torch.ones(len(codes)), accumulate=True
    )
    assert float(counts.max(1).values.sum() / len(codes)) > 0.995
    assert (counts.argmax(1)[counts.sum(1) > 0].unique()).numel() == len(centers)
    assert float((rebuilt - centers[which]).norm(dim=1).median()) < 0.5 * centers.shape[1] ** 0.5


def test_planted_clusters_are_found() -> None:
    centers, batches = clusters(101, 10, D)
    coder, report = train_sae([x for _, x in batches[:-1]], settings_of(100, k=1))
    which, x = batches[-1]
    found = encode(coder, x)
    assert_found(found.top_indices[:, 0], which, centers, decode(coder, found))
    quality = measure(coder, [x])
    assert (quality.l0, coder.info.expected_l0, report.l0) == (1, 1, 1)
    noise = (x - centers[which]).square().sum() / (x - x.mean(0)).square().sum()
    assert quality.fvu == pytest.approx(float(noise), rel=0.15)
    torch.testing.assert_close(coder.encoder_weight, normalize(coder.decoder_weight, dim=1))


def test_each_group_finds_the_clusters_of_its_own_part() -> None:
    parts = [clusters(101, n, D // 2) for n in (4, 7)]
    batches = [
        torch.cat([x for _, x in both], dim=1) for both in zip(*(b for _, b in parts), strict=True)
    ]
    coder, _ = train_sae(batches[:-1], settings_of(100, k=2, groups=2))
    found = encode(coder, batches[-1])
    rebuilt = decode(coder, found)
    for group, (centers, own) in enumerate(parts):
        part = slice(group * D // 2, (group + 1) * D // 2)
        assert_found(found.top_indices[:, group], own[-1][0], centers, rebuilt[:, part])
        mine = coder.decoder_weight.view(2, M // 2, D)[group]
        assert float(mine[:, part].abs().min(1).values.max()) > 0
        assert not mine.clone().index_fill_(1, torch.arange(D)[part], 0.0).any()


@pytest.mark.parametrize("groups", [1, 4])
def test_the_gradient_is_that_of_the_loss_with_its_choice_of_codes_fixed(groups: int) -> None:
    coder, x = codebook(groups), drawn(300, D, seed=1)
    chosen = dense(coder, x).double()
    w, b = (t.double().requires_grad_() for t in (coder.decoder_weight, coder.decoder_bias))
    variance = (x - x.mean(0)).double().square().sum()
    loss = (chosen @ w + b - x).square().sum() / variance
    loss.backward()
    assert w.grad is not None
    assert b.grad is not None
    empty = torch.zeros(0)
    p = Parameters(empty, empty, coder.decoder_weight, coder.decoder_bias)
    found, residual = codebook_gradient(p, x, K, groups)
    assert found.loss == found.fvu == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(
        found.gradient.w_dec.double(), in_groups(w.grad, groups), rtol=1e-4, atol=1e-7
    )
    torch.testing.assert_close(found.gradient.b_dec.double(), b.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(residual, decode(coder, encode(coder, x)) - x)
    assert torch.equal(found.live, chosen.bool().any(0))


def test_dead_codes_are_placed_on_the_tokens_of_largest_error_with_no_moments() -> None:
    x = drawn(N, D) + 3
    x[7, :8] *= 4  # the worst token of the first part, and another of the second
    x[9, 8:] *= -4
    trainer = CodebookTrainer(settings_of(9, groups=2, dead_after_tokens=2 * N), x)
    trainer.step(x)
    codes, moments = trainer.parameters.w_dec, trainer.adam.state[trainer.parameters.w_dec]
    dead = torch.zeros(M, dtype=torch.bool)
    dead[[2, 20]] = True
    before, scaled = codes.clone(), x * trainer.scale
    _, residual = codebook_gradient(trainer.parameters, scaled, K, 2)
    trainer.tokens_since_active[:] = 5
    assert all(bool(moments[name][dead].any()) for name in ("exp_avg", "exp_avg_sq"))
    trainer._revive(dead, scaled, residual)
    expected = (scaled - trainer.parameters.b_dec) / 2  # two codes of each part share a token
    torch.testing.assert_close(codes[2], torch.cat([expected[7, :8], torch.zeros(8)]))
    torch.testing.assert_close(codes[20], torch.cat([torch.zeros(8), expected[9, 8:]]))
    assert torch.equal(codes[~dead], before[~dead])
    for name in ("exp_avg", "exp_avg_sq"):
        assert not moments[name][dead].any()
        assert moments[name][~dead].any()
    assert trainer.tokens_since_active.tolist() == [0 if d else 5 for d in dead.tolist()]


def test_codes_that_no_token_has_come_to_life() -> None:
    _, batches = clusters(8, 6, D)
    trainer = CodebookTrainer(settings_of(8, k=1, dead_after_tokens=N), batches[0][1])
    trainer.parameters.w_dec[1:] = -trainer.parameters.w_dec[:1]  # one code for nearly all
    for _, x in batches:
        trainer.step(x)
    _, x = batches[0]
    assert len(encode(trainer.coder(), x).top_indices.unique()) > 4


@pytest.mark.parametrize("stop", [1, 4])
def test_a_stopped_training_ends_in_the_same_bytes(tmp_path: Path, stop: int) -> None:
    batches = [drawn(N, D, seed=i) for i in range(8)]
    settings = settings_of(8, dead_after_tokens=1, groups=2, k=2)
    whole, report = train_sae(batches, settings)
    file = tmp_path / "training.pt"

    def interrupt(metrics: StepMetrics) -> None:
        if metrics.step == stop + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sae(batches, settings, checkpoint=file, checkpoint_every=stop, on_step=interrupt)
    assert steps_done(file) == stop
    coder, again = train_sae(batches, settings, checkpoint=file)
    assert coder.info.sha256 == whole.info.sha256
    assert (again.curve, again.l0, again.fvu) == (report.curve, report.l0, report.fvu)
    with pytest.raises(InputError, match="other settings"):
        train_sae(batches, settings_of(8, k=4, groups=4), checkpoint=file)


def test_a_batch_smaller_than_the_codes_and_one_with_odd_tokens_train() -> None:
    x = drawn(N, D) + 1
    x[3] = torch.inf
    x[5] = 1e6
    trainer = CodebookTrainer(settings_of(3), drawn(10, D))
    for batch in (x[:10], x[:0], x[10:]):
        trainer.step(batch)
    assert (trainer.n_steps, trainer.n_skipped) == (3, 2)
    assert torch.isfinite(trainer.coder().decoder_weight).all()


def test_it_takes_activations_as_they_come() -> None:
    coders = [train_sae([64 * drawn(N, D, seed=i) * s for i in range(9)], settings_of(9))[0]
              for s in (1.0, 4.0)]  # fmt: skip
    torch.testing.assert_close(4 * coders[0].decoder_weight, coders[1].decoder_weight)
    torch.testing.assert_close(4 * coders[0].decoder_bias, coders[1].decoder_bias)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"auxk_alpha": 0.5}, "no AuxK: leave out `auxk_alpha`"),
        ({"k_start": 8}, "leave out `k_start`"),
        ({"k_anneal_share": 0.5}, "leave out `k_anneal_share`"),
        ({"widths": (5, M)}, "`widths` are for matryoshka"),
        ({"residual_threshold": 0.1}, "`residual_threshold` is for matching_pursuit"),
        ({"groups": 3}, r"groups \(3\) must divide k \(4\)"),
        ({"groups": 4, "num_latents": 26}, r"groups \(4\) must divide num_latents \(26\)"),
        ({"groups": 2, "architecture": "topk"}, "`groups` is for codebook, not for topk"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings_of(1, **given)


def test_groups_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match="no equal parts") as refused:
        train_sae([drawn(N, D)], settings_of(1, groups=3, k=3))
    assert (refused.value.field, refused.value.value) == ("sae.train.groups", 3)
