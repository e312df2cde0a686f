"""Small tokenizers of several families, built in memory: none is downloaded."""

import json
from pathlib import Path
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<|bos|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>"]
SPECIAL += ["<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"]
TEXTS = [
    "the user asks the assistant a question about the system",
    "def add(a, b):\n    return a + b\n\n\n",
    "  two spaces  and\ttabs\n\nand lines",
    "Cutting Knowledge Date: December 2023 Today Date: 26 Jul 2024",
    "âgé naïve 日本語 😀 emoji",
]


def byte_level(folder: Path, template: str | None = None, adds_bos: bool = False) -> Path:
    """GPT-like: bytes, a trimming post-processor, and BOS before every text if asked for."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS * 3, trainer)
    steps: list[Any] = [processors.ByteLevel(trim_offsets=True)]
    if adds_bos:
        bos = ("<|bos|>", bpe.token_to_id("<|bos|>"))
        steps.append(processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[bos]))
    bpe.post_processor = processors.Sequence(steps)
    return _save(bpe, folder, template, bos_token="<|bos|>", pad_token="<|pad|>")


def word_piece(folder: Path) -> Path:
    """BERT-like: lower case, [CLS] before and [SEP] after, unknown words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    pieces.train_from_iterator([text.lower() for text in TEXTS[:1]] * 3, trainer)
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, pieces.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return _save(
        pieces,
        folder,
        None,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
    )


def metaspace(folder: Path, template: str | None = None) -> Path:
    """Llama-2-like: a space belongs to the word after it, unknown characters become bytes."""
    special = ["<unk>", *SPECIAL]
    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    learned.train_from_iterator(TEXTS[:2] * 3, trainer)
    model = json.loads(learned.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    merges = [tuple(pair) for pair in model["merges"]]
    bpe = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.add_special_tokens(special)
    bpe.pre_tokenizer = learned.pre_tokenizer
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bos = ("<|bos|>", bpe.token_to_id("<|bos|>"))
    bpe.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[bos])
    return _save(bpe, folder, template, bos_token="<|bos|>", unk_token="<unk>")


def _save(backend: Tokenizer, folder: Path, template: str | None, **special: str) -> Path:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder
