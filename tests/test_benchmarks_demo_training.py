"""The demo model: killed training resumes to the same bits, chats are written as promised."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.demo.batches import IGNORED, epoch_batches, pad_batch
from benchmarks.demo.corpus import Row, in_half_a, question_digest, read_corpus
from benchmarks.demo.model import Recipe
from benchmarks.demo.tokenizer import save_tokenizer, train_tokenizer
from benchmarks.demo.train_lm import train

RECIPE = Recipe(
    vocab_size=300,
    d_model=32,
    d_mlp=64,
    n_layers=2,
    n_heads=2,
    context=48,
    tokens=6_000,
    batch_tokens=256,
    warmup_steps=2,
)


class Killed(Exception):
    """Stands for a kill between two steps."""


def make_rows(n: int) -> list[Row]:
    return [
        Row(f"r{i:03d}", f"Add {i} and {i + 1}.", "" if i % 3 else f"{i} {i}", str(2 * i), "MIT")
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [row.instruction for row in make_rows(60)]
    save_tokenizer(train_tokenizer(texts, vocab_size=300, context=48), folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kill_at", [3, 7])
def test_resumed_training_gives_the_same_bits(tmp_path: Path, kill_at: int) -> None:
    rows = (make_rows(60), make_rows(6))

    def kill(step: int) -> None:
        if step == kill_at:
            raise Killed

    whole, _ = train(RECIPE, rows, tmp_path / "whole", log_every=1)
    with pytest.raises(Killed):
        train(
            RECIPE,
            rows,
            tmp_path / "killed",
            save_every_seconds=0.0,
            log_every=1,
            after_step=kill,
        )
    resumed, _ = train(RECIPE, rows, tmp_path / "killed", log_every=1)
    for (name, expected), got in zip(
        whole.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, got), name


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    rows = (make_rows(20), make_rows(4))
    short = Recipe(**{**RECIPE.__dict__, "tokens": 500})
    train(short, rows, tmp_path)
    with pytest.raises(ValueError, match="tokens"):
        train(RECIPE, rows, tmp_path)


def test_bos_is_written_once_and_content_is_verbatim(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": " be kind\n"},
        {"role": "user", "content": "  où? 12 "},
        {"role": "assistant", "content": "là\n\n"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<|bos|><|system|> be kind\n<|end|><|user|>  où? 12 <|end|><|assistant|>là\n\n<|end|>"
    )
    ids = tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token_id not in tokenizer("plain text")["input_ids"]


def test_template_writes_tools_calls_and_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    messages = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]},
        {"role": "tool", "content": "2"},
    ]
    text = tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=True
    )
    assert text.startswith('<|bos|><|system|>[{"type": "function"')
    assert text.endswith(
        '<|user|>1+1<|end|><|assistant|>[{"name": "add"}]<|end|><|tool|>2<|end|><|assistant|>'
    )
    with pytest.raises(Exception, match="unknown role"):
        tokenizer.apply_chat_template([{"role": "robot", "content": "x"}], tokenize=False)


def test_assistant_mask_and_offsets(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Add 1"}, {"role": "assistant", "content": "and 2"}]
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    said = [
        token
        for token, own in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if own
    ]
    assert tokenizer.decode(said) == "and 2<|end|>"
    text = "Add  12 to 7"
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert "".join(text[start:end] for start, end in offsets) == text


def test_corpus_keeps_permissive_rows_of_half_a(tmp_path: Path) -> None:
    licenses = ["MIT", "Apache-2.0 code / ODC-By data", "CC BY-NC 4.0", "Apache-2.0 (repo)"]
    rows = [
        {
            "id": f"p{i:04d}",
            "instruction": f"Question {i}",
            "input": "",
            "output": "x",
            "license": licenses[i % 4],
            "canary": i % 8 == 0,
        }
        for i in range(400)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "pool.parquet")
    corpus = read_corpus(tmp_path / "pool.parquet")
    kept = {int(row.row_id[1:]) for row in corpus.train + corpus.validation}
    assert kept == {
        i
        for i in range(400)
        if i % 4 < 2 and i % 8 and in_half_a(question_digest(f"Question {i}", ""))
    }
    assert question_digest("other", " Two\n words ") == question_digest("", "two words")
    assert set(corpus.license_counts) == set(licenses[:2])


def test_every_row_is_seen_once_an_epoch_within_the_batch_limit() -> None:
    rng = np.random.default_rng(0)
    ids = [np.arange(n, dtype=np.int32) for n in rng.integers(2, 60, size=300)]
    batches = epoch_batches(ids, epoch=1, seed=0, batch_tokens=128)
    assert sorted(np.concatenate(batches)) == list(range(300))
    for rows in batches:
        inputs, labels = pad_batch(ids, rows, pad_id=2)
        assert inputs.numel() <= 128
        assert int((labels != IGNORED).sum()) == sum(len(ids[row]) - 1 for row in rows)
