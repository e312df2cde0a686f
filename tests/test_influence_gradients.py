"""Gradients of single samples, Adam's steps and projections, against one sample at a time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from selection.activations.loading import refuse_encoder
from selection.core.errors import InputError
from selection.evaluation.influence.adapted import (
    LEAVE_OUT,
    AdaptedModel,
    add_adapters,
    load_adapted,
    mean_losses,
)
from selection.evaluation.influence.gradients import (
    Projection,
    adam_direction,
    projected_gradients,
    projections,
    sample_gradients,
)
from selection.evaluation.influence.warm_up import BETAS, EPS, WarmUp, warm_up
from selection.models.resolve import resolve_model
from selection.records import Rendered
from selection.rendering.renderer import renderer_for
from tests.tiny_model import tiny_row


@pytest.fixture(scope="module")
def samples(tiny_model_dir: Path) -> list[Rendered]:
    renderer = renderer_for(
        resolve_model(tiny_model_dir), max_length=64, counted="response", truncation="keep_response"
    )
    rows = [tiny_row(i)["messages"] for i in range(8)]
    return renderer.render_batch([(messages, None) for messages in [*rows, rows[0][:1]]])


@pytest.fixture
def trainee(tiny_model_dir: Path, samples: Sequence[Rendered]) -> AdaptedModel:
    """With adapters that have learned a little, so that none of their gradients is 0."""
    made = load_adapted(resolve_model(tiny_model_dir), rank=4, alpha=8)
    warm_up(made, samples, WarmUp(epochs=2, batch=4, learning_rate=0.01))
    return made


@torch.no_grad()
def value_by_hand(trainee: AdaptedModel, sample: Rendered) -> float:
    return float(loss_by_hand(trainee, sample))


def loss_by_hand(trainee: AdaptedModel, sample: Rendered) -> torch.Tensor:
    """Mean over response tokens, one after another, of the plain model's logits."""
    ids = torch.from_numpy(sample.tokens.astype(np.int64))
    logits = trainee.module(input_ids=ids[None]).logits[0]
    at = [t for t in range(1, len(ids)) if sample.content_mask[t]]
    return torch.stack([-logits[t - 1].log_softmax(0)[ids[t]] for t in at]).mean()


def gradients_by_hand(trainee: AdaptedModel, sample: Rendered) -> dict[str, torch.Tensor]:
    weights = [layer.weight for layer in trainee.layers.values()]
    return dict(
        zip(
            trainee.layers,
            torch.autograd.grad(loss_by_hand(trainee, sample), weights),
            strict=True,
        )
    )


def test_losses_of_a_batch_are_those_of_responses_one_at_a_time(
    trainee: AdaptedModel, samples: Sequence[Rendered]
) -> None:
    losses = mean_losses(trainee, samples)
    for loss, sample in zip(losses[:8], samples, strict=False):
        assert loss == pytest.approx(value_by_hand(trainee, sample), rel=1e-5)
    assert np.isnan(losses[8])  # no response


def test_gradients_of_a_batch_equal_autograd_one_sample_at_a_time(
    trainee: AdaptedModel, samples: Sequence[Rendered]
) -> None:
    batch = dict(sample_gradients(trainee, samples[:8]))
    assert set(batch) == set(trainee.layers)
    for row, sample in enumerate(samples[:8]):
        for name, expected in gradients_by_hand(trainee, sample).items():
            scale = float(expected.abs().max())
            assert scale > 0
            assert float((batch[name][row] - expected).abs().max()) < 1e-4 * scale


def test_adams_direction_is_the_step_that_torch_takes() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 4, generator=generator))
    optimizer = torch.optim.Adam([weight], lr=0.1, betas=BETAS, eps=EPS)
    for _ in range(5):
        weight.grad = torch.randn(3, 4, generator=generator)
        optimizer.step()
    state = {key: value.clone() for key, value in optimizer.state[weight].items()}
    before, gradient = weight.detach().clone(), torch.randn(3, 4, generator=generator)
    weight.grad = gradient
    optimizer.step()
    found = adam_direction(gradient, state["exp_avg"], state["exp_avg_sq"], 5)
    assert torch.allclose(found, (before - weight.detach()) / 0.1, atol=1e-5)


def test_a_projection_is_seeded_and_keeps_cosines_within_its_bound() -> None:
    k, rng = 512, np.random.default_rng(1)
    vectors = rng.standard_normal((20, 5000)).astype(np.float32)
    vectors[10:] += vectors[:10]  # pairs with a cosine of about 0.7
    unit = torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    errors = []
    for seed in range(20):
        projected = Projection.seeded(5000, k, (seed,), unit.device)(unit)
        errors.append((projected @ projected.T - unit @ unit.T).numpy())
    assert np.std(errors) < np.sqrt(2 / k)
    assert abs(np.mean(errors)) < 3 * np.sqrt(2 / k) / np.sqrt(20)
    again = Projection.seeded(5000, k, (19,), unit.device)(unit)
    assert torch.equal(again, projected)


def test_a_projection_adds_up_signed_values() -> None:
    """Against a matrix written out, also where there are fewer values than sums."""
    for n, k in ((7, 3), (3, 7)):
        made = Projection.seeded(n, k, (0,), torch.device("cpu"))
        matrix = np.zeros((n, k))
        for position, value in enumerate(made.order.tolist()):
            if value < n:
                matrix[value, position % k] = float(made.signs[value])
        assert (np.abs(matrix).sum(1) == 1).all()
        vectors = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32)
        assert made(torch.from_numpy(vectors)).numpy() == pytest.approx(vectors @ matrix, abs=1e-6)


def test_features_are_projected_adam_steps_of_length_one(
    trainee: AdaptedModel, samples: Sequence[Rendered]
) -> None:
    adam = warm_up(trainee, samples, WarmUp(epochs=1, batch=4, learning_rate=1e-3))
    maps = projections(trainee, 256, seed=3)
    scaled = adam.without_first()
    found, plain, divided = projected_gradients(trainee, samples, maps, [adam, None, scaled])
    for row in range(8):
        by_layer = gradients_by_hand(trainee, samples[row])
        steps = {
            name: adam_direction(g, adam.first[name], adam.second[name], adam.step)
            for name, g in by_layer.items()
        }
        roots = {
            name: (BETAS[1] * adam.second[name] + (1 - BETAS[1]) * g**2).sqrt()
            for name, g in by_layer.items()
        }
        ratios = {name: g / (roots[name] + 1e-12) for name, g in by_layer.items()}
        for features, parts in ((found, steps), (plain, by_layer), (divided, ratios)):
            total = sum(maps[name](parts[name].reshape(1, -1))[0] for name in maps)
            assert isinstance(total, torch.Tensor)
            expected = (total / total.norm()).numpy()
            assert features[row] == pytest.approx(expected, abs=2e-3)
    assert not found[8].any()  # no response, no gradient


def test_a_warm_up_lowers_the_loss_and_repeats_to_the_bit(
    tiny_model_dir: Path, samples: Sequence[Rendered]
) -> None:
    settings = WarmUp(epochs=4, batch=4, learning_rate=0.01)
    made = [load_adapted(resolve_model(tiny_model_dir), rank=4, alpha=8) for _ in range(2)]
    before = np.nanmean(mean_losses(made[0], samples))
    states = [warm_up(each, samples, settings) for each in made]
    assert np.nanmean(mean_losses(made[0], samples)) < before - 0.1
    assert states[0].step == 8
    for name in made[0].layers:
        assert torch.equal(made[0].layers[name].weight, made[1].layers[name].weight)
        assert torch.equal(states[0].second[name], states[1].second[name])


def test_an_encoder_is_refused(tiny_model_dir: Path) -> None:
    encoder = replace(resolve_model(tiny_model_dir), kind="encoder")
    with pytest.raises(InputError, match="this one is an encoder"):
        refuse_encoder(encoder, "--model", LEAVE_OUT)


def test_maps_that_lie_the_other_way_get_adapters_too() -> None:
    """GPT-2's `Conv1D`; the adapted model begins as the plain one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    module = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    ).eval()
    ids = torch.arange(10)[None]
    before = module(ids).logits
    layers = add_adapters(module.transformer.h, rank=2, alpha=4)
    assert torch.equal(module(ids).logits, before)
    assert layers["1.attn.c_attn.up"].weight.shape == (48, 2)
    assert not [name for name in layers if "mlp" in name]
