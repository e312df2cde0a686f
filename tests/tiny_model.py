"""A tiny seeded model, its tokenizer, its SAE and rows of a pool; nothing is downloaded."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

TINY_D_MODEL = 32
TINY_N_LAYERS = 4
TINY_N_LATENTS = 64
TINY_K = 4
TINY_HOOKPOINT = "layers.2"

TINY_CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{{ message['content'] or '' }}"
    "{% if message.get('tool_calls') %}{{ message['tool_calls'] | tojson }}{% endif %}"
    "{{ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

_SPECIAL_TOKENS = ["<|bos|>", "<|end|>", "<|pad|>"]
_SPECIAL_TOKENS += ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_ANIMALS = (("dog", "chien"), ("cat", "chat"), ("horse", "cheval"), ("bird", "oiseau"))
_MOODS = (("wonderful", "positive"), ("dull", "negative"), ("moving", "positive"))


def arithmetic(i: int) -> tuple[str, str]:
    """A word problem and its worked answer."""
    a = i % len(_NUMBERS)
    question = f"Ann has {_NUMBERS[a]} apples and buys {i} more. How many has she now?"
    return question, f"{a + 2} + {i} = {a + i + 2}. She has {a + i + 2} apples."


def translation(i: int) -> tuple[str, str]:
    """An English sentence and its French translation, with letters beyond ASCII."""
    english, french = _ANIMALS[i % len(_ANIMALS)]
    number = i + 2
    return (
        f"Translate to French: the {english} is {number} years old.",
        f"Le {french} est âgé de {number} ans.",
    )


def code(i: int) -> tuple[str, str]:
    """A small programming task and a function that solves it."""
    return (
        f"Write a Python function that multiplies x by {i + 2}.",
        f"```python\ndef times_{i + 2}(x: int) -> int:\n    return x * {i + 2}\n```",
    )


def sentiment(i: int) -> tuple[str, str]:
    """A film review and its label."""
    word, label = _MOODS[i % len(_MOODS)]
    return f"Review {i}: a {word} film. Is it positive or negative?", label


_KINDS = {
    "arithmetic": arithmetic,
    "translation": translation,
    "code": code,
    "sentiment": sentiment,
}


def tiny_row(i: int) -> dict[str, Any]:
    """Row i of the tiny pool: four kinds in turn, some with a system text or several turns."""
    kind = list(_KINDS)[i % len(_KINDS)]
    question, answer = _KINDS[kind](i)
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if i % 10 == 5:
        messages.insert(0, {"role": "system", "content": "Answer in one line."})
    if i % 10 == 8:
        follow_up, second = _KINDS[kind](i + 1)
        messages += [
            {"role": "user", "content": follow_up},
            {"role": "assistant", "content": second},
        ]
    return {
        "id": f"row-{i}",
        "messages": messages,
        "source": kind,
        "licence": "MIT" if i % 3 else "CC-BY-4.0",
        "quality": i % 7,
    }


def write_jsonl(path: Path, rows: Sequence[object]) -> Path:
    """Write one JSON value a line and return the path."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def make_tiny_tokenizer() -> Any:
    """Byte-level BPE of at most 400 tokens; BOS comes from the chat template alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=_SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [m["content"] for i in range(60) for m in tiny_row(i)["messages"]]
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TINY_CHAT_TEMPLATE
    return tokenizer


def write_tiny_model(folder: Path, tokenizer: Any) -> Path:
    """Save a random Llama (4 blocks, width 32) with its tokenizer, as a user's model folder is."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TINY_D_MODEL,
        intermediate_size=64,
        num_hidden_layers=TINY_N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,  # Larger than usual: random blocks must change the residual.
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_sae(folder: Path) -> Path:
    """Write a random TopK SAE in the sparsify format by hand."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((TINY_N_LATENTS, TINY_D_MODEL)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    tensors = {
        "encoder.weight": decoder + 0.1 * rng.standard_normal(decoder.shape).astype(np.float32),
        "encoder.bias": 0.1 * rng.standard_normal(TINY_N_LATENTS).astype(np.float32),
        "W_dec": decoder,
        "b_dec": 0.1 * rng.standard_normal(TINY_D_MODEL).astype(np.float32),
    }
    save_file(tensors, folder / "sae.safetensors")
    config = {
        "activation": "topk",
        "expansion_factor": 2,
        "normalize_decoder": True,
        "num_latents": TINY_N_LATENTS,
        "k": TINY_K,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": TINY_D_MODEL,
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder
