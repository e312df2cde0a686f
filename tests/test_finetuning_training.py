"""Budgets, training and measures with the tiny model, against loops over single samples."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from selection.core.errors import InputError
from selection.finetuning.budgets import fill_budget, of_equal_length, steps_of
from selection.finetuning.measures import labels_of, measure_model, questions_of, response_bits
from selection.finetuning.trainee import Trainee, TraineeTexts, load_trainee
from selection.finetuning.training import TrainSettings, schedule, train
from selection.models.resolve import resolve_model
from selection.records import Rendered
from tests.finetune_pool import labelled_pool

SETTINGS = TrainSettings(learning_rate=1e-3, step_tokens=64)


@pytest.fixture(scope="module")
def trainee(tiny_model_dir: Path) -> Trainee:
    return load_trainee(resolve_model(tiny_model_dir), max_length=64, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def texts(trainee: Trainee) -> TraineeTexts:
    return TraineeTexts(labelled_pool(), "full", trainee.renderer)


@pytest.fixture(scope="module")
def samples(texts: TraineeTexts) -> list[Rendered]:
    return texts.samples(np.arange(40))


def bits_by_loop(trainee: Trainee, sample: Rendered) -> tuple[float, bool]:
    """One sample alone, one token after the other."""
    tokens = sample.tokens.astype(np.int64).tolist()
    bits, exact = 0.0, True
    for position in np.flatnonzero(sample.content_mask).tolist():
        with torch.no_grad():
            logits = trainee.model(torch.tensor([tokens[:position]])).logits[0, -1].double()
        bits -= float(torch.log_softmax(logits, 0)[tokens[position]]) / np.log(2)
        exact &= int(logits.argmax()) == tokens[position]
    return bits, exact


def test_bits_of_responses_equal_a_loop_over_tokens(
    trainee: Trainee, samples: list[Rendered]
) -> None:
    trainee.reset()
    bits, exact = response_bits(trainee, samples)
    for number in (0, 1, 2, 3, 17, 39):
        expected = bits_by_loop(trainee, samples[number])
        assert bits[number] == pytest.approx(expected[0], rel=1e-4)
        assert exact[number] == expected[1]


def test_a_response_that_was_learnt_by_heart_is_exact_and_its_label_the_likeliest(
    trainee: Trainee, texts: TraineeTexts
) -> None:
    pool = texts.pool
    answers = pool.table["output"].to_pylist()
    rows = np.array([i for i, answer in enumerate(answers) if answer in ("good", "bad")][:6])
    labels = labels_of([answers[row] for row in rows])
    assert sorted(labels) == ["bad", "good"]
    questions = questions_of(texts, rows, labels, np.arange(3))
    assert questions.n_bytes[:6].tolist() == [len(answers[row]) for row in rows]
    train(trainee, texts.samples(np.tile(rows, 60)), TrainSettings(3e-3, 64), seed=0)
    measured = measure_model(trainee, questions)
    assert measured.exact is not None
    assert measured.right is not None
    by_loop = [bits_by_loop(trainee, sample) for sample in questions.samples[:6]]
    assert measured.exact.tolist() == [exact for _, exact in by_loop]
    of_labels = [
        [bits_by_loop(trainee, texts.answered(row, label))[0] for label in labels] for row in rows
    ]
    best = [labels[int(np.argmin(each))] for each in of_labels]
    own = [b == answers[row] for b, row in zip(best, rows, strict=True)]
    assert measured.right.tolist() == own
    assert measured.exact.mean() > 0.5
    mix = [bits_by_loop(trainee, sample)[0] for sample in texts.samples(np.arange(3))]
    n_bytes = sum(len(answers[row].encode()) for row in range(3))
    assert measured.general == pytest.approx(sum(mix) / n_bytes, rel=1e-3)


def test_many_answers_are_no_labels() -> None:
    assert labels_of([str(i) for i in range(9)]) == []
    assert labels_of(["yes "] * 4) == []
    assert labels_of(["no", "yes", "yes "]) == ["yes", "no"]


@pytest.mark.parametrize("budget", [50, 333, 700])
def test_budgets_are_met_to_the_token_and_nested(texts: TraineeTexts, budget: int) -> None:
    order = np.random.default_rng(1).permutation(60)
    rows, taken = fill_budget(order, texts.samples, budget)
    assert sum(len(sample.tokens) for sample in taken) == budget
    whole = texts.samples(rows)
    for sample, uncut in zip(taken[:-1], whole[:-1], strict=True):
        assert sample is uncut
    n = len(taken[-1].tokens)
    assert taken[-1].tokens.tolist() == whole[-1].tokens[:n].tolist()
    more, _ = fill_budget(order, texts.samples, budget + 100)
    assert more[: len(rows)].tolist() == rows.tolist() == order[: len(rows)].tolist()
    with pytest.raises(InputError, match="fewer than the budget"):
        fill_budget(order[:3], texts.samples, 10_000)


def test_steps_hold_every_sample_once_with_about_the_same_tokens() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 300)
    steps = steps_of(lengths.tolist(), 20, seed=3)
    assert sorted(np.concatenate(steps).tolist()) == list(range(300))
    tokens = [int(lengths[step].sum()) for step in steps]
    assert len(steps) == 20
    assert max(tokens) - min(tokens) <= 2 * 60
    again = steps_of(lengths.tolist(), 20, seed=3)
    assert [step.tolist() for step in again] == [step.tolist() for step in steps]
    assert [s.tolist() for s in steps_of(lengths.tolist(), 20, 4)] != [s.tolist() for s in steps]


def test_length_matched_rows_are_as_long_as_the_picks(texts: TraineeTexts) -> None:
    picked = texts.samples(np.arange(0, 40, 4))
    rows = of_equal_length(picked, np.arange(40, 160), texts.samples)
    assert len(set(rows.tolist())) == len(rows) == 10
    off = [
        abs(len(a.tokens) - len(b.tokens)) for a, b in zip(picked, texts.samples(rows), strict=True)
    ]
    assert np.mean(off) <= 1


def test_a_run_is_the_same_after_another_and_follows_a_loop_of_adamw(
    trainee: Trainee, samples: list[Rendered], tiny_model_dir: Path
) -> None:
    train(trainee, samples, SETTINGS, seed=5)
    first = [p.detach().clone() for p in trainee.trained]
    train(trainee, samples[:7], SETTINGS, seed=1)
    train(trainee, samples, SETTINGS, seed=5)
    for before, after in zip(first, trainee.trained, strict=True):
        torch.testing.assert_close(after.detach(), before, rtol=0, atol=0)
    fresh = load_trainee(
        resolve_model(tiny_model_dir), max_length=64, device="cpu", dtype="float32"
    )
    optimizer = torch.optim.AdamW(fresh.trained, lr=1e-3, weight_decay=0.0)
    lengths = [len(sample.tokens) for sample in samples]
    steps = steps_of(lengths, round(sum(lengths) / 64), 5)
    for number, step in enumerate(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * schedule(number, len(steps))
        losses, n = [], 0
        for i in step.tolist():
            tokens = torch.from_numpy(samples[i].tokens.astype(np.int64))
            counted = samples[i].content_mask
            learnt = counted.copy()
            learnt[1:] |= counted[:-1]
            logp = torch.log_softmax(fresh.model(tokens[None]).logits[0, :-1].float(), -1)
            chosen = logp[torch.arange(len(tokens) - 1), tokens[1:]][torch.from_numpy(learnt[1:])]
            losses.append(-chosen.sum())
            n += len(chosen)
        (torch.stack(losses).sum() / n).backward()
        torch.nn.utils.clip_grad_norm_(fresh.trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    # Adam divides tiny gradients by their size, so a few of the weights differ by a step.
    for ours, loop in zip(first, fresh.trained, strict=True):
        assert float((ours - loop.detach()).abs().mean()) < 2e-5


def test_the_learning_rate_rises_over_a_tenth_and_falls_to_the_end() -> None:
    rates = [schedule(step, 40) for step in range(40)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:] == pytest.approx([1 - i / 36 for i in range(36)])
    assert schedule(0, 1) == 1.0


def test_only_the_last_blocks_are_trained(tiny_model_dir: Path, samples: list[Rendered]) -> None:
    resolved = resolve_model(tiny_model_dir)
    part = load_trainee(resolved, "last:1", max_length=64, device="cpu", dtype="float32")
    names = [name for name, p in part.model.named_parameters() if p.requires_grad]
    assert names
    assert all(f"layers.{resolved.n_layers - 1}." in name for name in names)
    before = {name: p.detach().clone() for name, p in part.model.named_parameters()}
    train(part, samples, SETTINGS, seed=0)
    for name, p in part.model.named_parameters():
        assert torch.equal(p, before[name]) is (name not in names)


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("half", "no such way to train"),
        ("last:0", "no such way to train"),
        ("lora:x", "no such way to train"),
        ("last:5", "the model has 4 blocks"),
    ],
)
def test_other_ways_to_train_are_refused(tiny_model_dir: Path, tune: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_trainee(resolve_model(tiny_model_dir), tune)


def test_without_other_tasks_nothing_is_said_of_what_is_forgotten(
    trainee: Trainee, texts: TraineeTexts
) -> None:
    nothing = np.array([], np.int64)
    assert measure_model(trainee, questions_of(texts, np.arange(3), [], nothing)).general is None


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.filterwarnings("ignore")  # of what peft calls in transformers
def test_an_adapter_alone_is_trained_and_put_back(
    tiny_model_dir: Path, samples: list[Rendered]
) -> None:
    part = load_trainee(
        resolve_model(tiny_model_dir), "lora:2", max_length=64, device="cpu", dtype="float32"
    )
    names = {name for name, p in part.model.named_parameters() if p.requires_grad}
    assert names
    assert all("lora_" in name for name in names)
    before, _ = response_bits(part, samples)
    base = [p.detach().clone() for name, p in part.model.named_parameters() if name not in names]
    train(part, samples, TrainSettings(1e-2, 64), seed=0)
    after, _ = response_bits(part, samples)
    assert after.sum() < before.sum()
    same = [p.detach() for name, p in part.model.named_parameters() if name not in names]
    assert all(torch.equal(a, b) for a, b in zip(base, same, strict=True))
    part.reset()
    np.testing.assert_array_equal(response_bits(part, samples)[0], before)
