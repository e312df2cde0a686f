"""How much of a target k latents carry: planted latents, a slow definition, one pass of a model."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from flows.cli.saes import measure_from_config
from selection.activations.batching import iter_activations
from selection.activations.model import load_activation_model
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model
from selection.rendering.renderer import load_renderer
from selection.sae.encode import encode, reconstruct
from selection.sae.formats.load import load_sae
from selection.sae.interpret.target_quality import (
    TargetQuality,
    best_latents,
    discriminant,
    pool_samples,
    target_quality,
)
from storage.files.workspace import TARGET_QUALITY
from storage.report.page import write_report
from tests.run_stages import run_job, tiny_config

Planted = tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.bool_]]


def planted(
    n_exemplars: int, n_drawn: int, gap: float, n_latents: int = 50, seed: int = 0
) -> Planted:
    """Noise in 40 dimensions, with a gap along one direction, most of which latent 7 reads."""
    rng, n = np.random.default_rng(seed), n_exemplars + n_drawn
    is_exemplar = rng.permutation(np.arange(n) < n_exemplars)
    x = rng.normal(3, 1, (n, 40))
    x[:, 11] += gap * is_exemplar
    latents = np.maximum(0, rng.normal(0, 1, (n, n_latents))).astype(np.float32)
    latents[:, 7] = np.maximum(0, x[:, 11] - 3 + 0.3 * rng.normal(0, 1, n))
    return x, latents, is_exemplar


def primal(x: NDArray[np.float64], is_exemplar: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same ridge by its normal equations, column by column."""
    spread = [float(c.std()) if np.ptp(c) else 0.0 for c in x.T]
    z = np.stack([(c - c.mean()) / (s or np.inf) for c, s in zip(x.T, spread, strict=True)], axis=1)
    d = sum(map(bool, spread))
    y = is_exemplar - is_exemplar.mean()
    beta = np.linalg.solve(z.T @ z / d + np.eye(x.shape[1]), z.T @ y)
    return np.array([b / (s or np.inf) for b, s in zip(beta, spread, strict=True)])


def test_the_direction_is_ridge_on_standardized_columns() -> None:
    x, _, is_exemplar = planted(5, 30, 1.0)
    x[:, 3] = 0.1  # constant
    assert discriminant(x, is_exemplar) == pytest.approx(primal(x, is_exemplar), rel=1e-6)
    one = discriminant(x[:, 11:12], is_exemplar)
    assert one[0] > 0


def test_latents_are_ordered_by_difference_over_deviation_within() -> None:
    _, latents, is_exemplar = planted(6, 40, 5.0)
    latents[:, 4] = 0
    effects = []
    for column in latents.T.astype(float):
        ours, others = column[is_exemplar], column[~is_exemplar]
        within = (((ours - ours.mean()) ** 2).sum() + ((others - others.mean()) ** 2).sum()) / 46
        effects.append(abs(ours.mean() - others.mean()) / within**0.5 if within else 0.0)
    expected = sorted(range(50), key=lambda column: (-effects[column], column))
    assert best_latents(latents, is_exemplar).tolist() == expected
    assert expected[0] == 7
    assert expected[-1] == 4


@pytest.mark.parametrize(("n_exemplars", "n_folds"), [(4, 4), (13, 10)])
def test_it_is_its_definition_with_every_pair_held_out(n_exemplars: int, n_folds: int) -> None:
    x, latents, is_exemplar = planted(n_exemplars, 22, 1.0)
    recon = x * 0.5 + np.random.default_rng(1).normal(0, 0.3, x.shape)
    quality = target_quality(x, latents, recon, is_exemplar, (1, 3))
    wins: dict[object, list[float]] = {"probe": [], 1: [], 3: []}
    gaps, recon_gaps = 0.0, 0.0
    kinds = [np.flatnonzero(is_exemplar).tolist(), np.flatnonzero(~is_exemplar).tolist()]
    for fold in range(n_folds):
        ours, others = ([row for at, row in enumerate(kind, start=1) if at % n_folds == fold]
                        for kind in kinds)  # fmt: skip
        seen = [row for row in range(len(x)) if row not in {*ours, *others}]
        w = primal(x[seen], is_exemplar[seen])
        order = best_latents(latents[seen], is_exemplar[seen])
        scores: dict[object, Any] = {"probe": x @ w}
        for count in (1, 3):
            chosen = latents[:, order[:count]].astype(float)
            scores[count] = chosen @ primal(chosen[seen], is_exemplar[seen])
        for name, score in scores.items():
            for a in ours:
                for b in others:
                    wins[name].append(1.0 if score[a] > score[b] else 0.5 * (score[a] == score[b]))
        gaps += (x[ours].mean(0) - x[others].mean(0)) @ w
        recon_gaps += (recon[ours].mean(0) - recon[others].mean(0)) @ w
    assert quality.probe_auc == pytest.approx(np.mean(wins["probe"]))
    assert quality.latents_auc == pytest.approx({1: np.mean(wins[1]), 3: np.mean(wins[3])})
    assert quality.kept == pytest.approx(recon_gaps / gaps)
    assert list(quality.best) == best_latents(latents, is_exemplar)[:3].tolist()
    way = (np.mean(wins[3]) - 0.5) / (np.mean(wins["probe"]) - 0.5)
    assert quality.share(3) == pytest.approx(way)


def test_a_planted_latent_carries_the_target_and_noise_does_not() -> None:
    x, latents, is_exemplar = planted(8, 256, 5.0)
    full = target_quality(x, latents, x, is_exemplar)
    assert full.probe_auc > 0.99
    assert full.latents_auc[1] > 0.99
    assert full.best[0] == 7
    assert full.kept == pytest.approx(1)
    without = x.copy()
    without[:, 11] = 3
    latents[:, 7] = 0
    lost = target_quality(x, latents, without, is_exemplar)
    assert lost.kept == pytest.approx(0, abs=0.1)
    assert max(lost.latents_auc.values()) < 0.75
    assert target_quality(x, latents, None, is_exemplar).kept is None


def test_choosing_among_many_latents_of_noise_gives_chance() -> None:
    runs = [planted(8, 64, 0.0, n_latents=300, seed=seed) for seed in range(16)]
    each = [target_quality(x, latents, None, kind) for x, latents, kind in runs]
    for count in (1, 4, 16):
        assert np.mean([one.latents_auc[count] for one in each]) == pytest.approx(0.5, abs=0.12)
    assert np.mean([one.probe_auc for one in each]) == pytest.approx(0.5, abs=0.12)


def test_one_exemplar_cannot_be_held_out() -> None:
    x, latents, _ = planted(2, 8, 1.0)
    with pytest.raises(ValueError, match="at least two exemplars"):
        target_quality(x, latents, None, np.arange(10) < 1)


def test_means_of_samples_are_those_of_each_alone(tiny_model_dir: Path, tiny_sae_dir: Path) -> None:
    """Activations, reconstructions and latents, in any batches."""
    hookpoint = Hookpoint("resid", 2)
    model = load_activation_model(resolve_model(tiny_model_dir), hookpoint)
    coder, renderer = load_sae(tiny_sae_dir), load_renderer(tiny_model_dir, max_length=64)
    texts = ["Add 3 and 4.", "Translate: good day", "What is the capital of France, and why?"]
    samples = renderer.render_batch([
        ([{"role": "user", "content": text}, {"role": "assistant", "content": text * 2}], None)
        for text in texts
    ])  # fmt: skip
    pooled = pool_samples(samples, model, coder, hookpoint, 40)
    assert pooled.reconstructions is not None
    for number, sample in enumerate(samples):
        (batch,) = iter_activations(model, [sample], None)
        x = batch.at(0)
        top = encode(coder, x)
        shape = (len(x), coder.info.num_latents)
        dense = torch.zeros(shape).scatter_(1, top.top_indices, top.top_acts)
        assert pooled.activations[number] == pytest.approx(x.mean(0).numpy(), rel=1e-4, abs=1e-5)
        recon = reconstruct(coder, top, x).mean(0).numpy()
        assert pooled.reconstructions[number] == pytest.approx(recon, rel=1e-4, abs=1e-5)
        mean = np.zeros(coder.info.num_latents)
        mean[pooled.numbers] = pooled.latents[number]
        assert mean == pytest.approx(dense.mean(0).numpy(), rel=1e-4, abs=1e-5)


def test_the_command_says_it_of_each_target(
    paths: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(tiny_config(*paths).model_dump(mode="json")))
    measure_from_config(str(path), tmp_path / "w")
    shown = capsys.readouterr().out
    assert "reports show" not in shown
    for words in ("activations", "1 latent", "16 latents", "kept", "not described"):
        assert words in shown
    one = {**tiny_config(*paths).model_dump(mode="json")}
    file = tmp_path / "one.jsonl"
    file.write_text(Path(paths[1]).read_text().splitlines()[0])
    one["exemplars"] = {"path": str(file)}
    path.write_text(yaml.safe_dump(one))
    with pytest.raises(InputError, match="too few to hold one out"):
        measure_from_config(str(path), tmp_path / "w")


def test_intervals_of_few_exemplars_hold_the_auc_of_the_population() -> None:
    """Normal scores, so that the AUC is known; the intervals may be too wide, not too narrow."""
    rng = np.random.default_rng(0)
    for gap in (0.0, 1.0, 2.0):
        truth = 0.5 * (1 + math.erf(gap / 2))
        held = []
        for _ in range(300):
            wins = rng.normal(gap, 1, 8)[:, None] > rng.normal(0, 1, 256)[None, :]
            auc = float(wins.mean())
            low, high = TargetQuality(8, 256, auc, {}, None, []).interval(auc)
            assert 0 <= low <= auc <= high <= 1
            held.append(low <= truth <= high)
        assert np.mean(held) >= 0.95


def test_the_report_shows_it_for_the_same_exemplars_only(paths: Any, tmp_path: Path) -> None:
    config = tiny_config(*paths, controls=[])
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    measure_from_config(str(path), tmp_path / "w")
    workspace, (row,) = run_job(config, tmp_path / "w")
    page = (workspace.reports / f"{row['name']}.html").read_text()
    (file,) = workspace.saes.glob(f"described/*/{TARGET_QUALITY}")
    kept = json.loads(file.read_text())
    (measured,) = kept["targets"].values()
    section = page.partition('<section id="quality">')[2].partition("</section>")[0]
    for each in measured["rows"]:
        low, high = each["interval"]
        assert f'<td class="n">{each["auc"]:.3f}</td>' in section
        assert f'<td class="n">{low:.2f} to {high:.2f}</td>' in section
    measured["exemplars"] = "others"
    file.write_text(json.dumps(kept))
    again = write_report(workspace, str(row["name"])).read_text()
    assert '<section id="quality">' not in again
    file.write_text("{")
    assert write_report(workspace, str(row["name"])).exists()
