"""Texts to token ids with character offsets: the one file that meets a tokenizer."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.json_text import parsed

Tokens = NDArray[np.uint32]
Offsets = NDArray[np.int64]

_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")


class TokenReader:
    """A fast tokenizer that adds nothing of its own and knows what the model expects around a text.

    prefix:        ids the model expects before a text, e.g. (BOS,) or ([CLS],); may be empty.
    suffix:        ids the tokenizer puts after a text without chat template, e.g. ([SEP],).
    sha256:        hash of vocabulary, merges, normalization, prefix and suffix.
    chat_template: the tokenizer's own Jinja template, or None.
    variables:     special tokens by name, as chat templates use them.
    is_special:    (n_vocab,) bool, tokens that are never content; the unknown token may be.
    pad_id:        what fills rows up: the padding token, else the one that ends a text, else 0.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Take over a fast transformers tokenizer; its post-processor is removed."""
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self.prefix, self.suffix = _around(self._backend)
        # Post-processors trim white space off the offsets (GPT-2, Llama 3, RoBERTa); content that
        # is white space would then lie in no token.
        self._backend.post_processor = None
        self.chat_template: str | None = _own_template(tokenizer)
        named = tokenizer.special_tokens_map.items()
        self.variables = {name: str(token) for name, token in named if isinstance(token, str)}
        self.is_special = _special_tokens(tokenizer, self._backend)
        self.sha256 = self._hash()
        fillers = (tokenizer.pad_token_id, tokenizer.eos_token_id)
        self.pad_id = next((int(token) for token in fillers if token is not None), 0)

    def expect_bos(self) -> None:
        """Expect BOS before every text: the chat template writes it, so the model has seen it."""
        if not self.prefix:
            self.prefix = (int(self._tokenizer.bos_token_id),)
            self.sha256 = self._hash()

    def encode_batch(self, texts: Sequence[str]) -> list[tuple[Tokens, Offsets]]:
        """Token ids (t,) and character offsets (t, 2) of each text; nothing added or cut."""
        return [
            (
                np.array(encoding.ids, dtype=np.uint32),
                np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
            )
            for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)
        ]

    def decode(self, tokens: Tokens) -> str:
        """Text of some tokens, special ones included."""
        return str(self._backend.decode(tokens.tolist(), skip_special_tokens=False))

    def _hash(self) -> str:
        """Hash of everything that decides which ids a text becomes."""
        state = f"{self.prefix}{self.suffix}{self._backend.to_str()}"
        return hashlib.sha256(state.encode()).hexdigest()


def load_tokenizer(folder: Path, gguf_file: str | None = None) -> TokenReader:
    """Load the tokenizer files of a folder; no code from the folder is run.

    gguf_file: where the folder has no tokenizer.json, the file that holds the tokenizer.

    Raises InputError if there is no tokenizer, or only one without character offsets.
    """
    import transformers

    # AutoTokenizer would import every layer that its config class knows, for a second or more.
    kind = "PreTrainedTokenizerFast" if _is_generic(folder) else "AutoTokenizer"
    in_gguf = gguf_file is not None and not (folder / "tokenizer.json").is_file()
    from_gguf = {"gguf_file": gguf_file} if in_gguf else {}
    try:
        tokenizer = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **from_gguf
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"no tokenizer can be loaded from this folder ({reason})",
            remedy="Put tokenizer.json and tokenizer_config.json there, or name another tokenizer.",
            file=folder,
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise InputError(
            "this tokenizer cannot say which characters a token stands for",
            remedy="Save a fast version of it (a tokenizer.json) and name that folder.",
            file=folder,
            value=type(tokenizer).__name__,
        )
    return TokenReader(tokenizer)


def _is_generic(folder: Path) -> bool:
    """Whether the folder's tokenizer.json is all there is to its tokenizer."""
    try:
        settings = parsed((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    has_file = (folder / "tokenizer.json").is_file()
    return has_file and isinstance(settings, dict) and settings.get("tokenizer_class") in _GENERIC


def _around(backend: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the post-processor puts before and after a text."""
    encoding = backend.encode("a")
    added = encoding.special_tokens_mask
    n_before = added.index(0) if 0 in added else 0
    n_after = added[::-1].index(0) if 0 in added else 0
    ids = encoding.ids
    return tuple(ids[:n_before]), tuple(ids[len(ids) - n_after :])


def _own_template(tokenizer: Any) -> str | None:
    """The tokenizer's chat template; the one called "default" where there are several."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or None


def _special_tokens(tokenizer: Any, backend: Any) -> NDArray[np.bool_]:
    """Special tokens by id, except the unknown token if it has no other office."""
    offices = {
        tokenizer.convert_tokens_to_ids(token)
        for name, token in tokenizer.special_tokens_map.items()
        if name != "unk_token" and isinstance(token, str)
    }
    special = {id_ for id_, token in backend.get_added_tokens_decoder().items() if token.special}
    special |= {id_ for id_ in tokenizer.all_special_ids if id_ is not None}
    special -= {tokenizer.unk_token_id} - offices
    is_special = np.zeros(backend.get_vocab_size(with_added_tokens=True) + 1, dtype=np.bool_)
    ids = np.array(sorted(special), dtype=np.int64)
    is_special = np.zeros(max(is_special.size, int(ids.max(initial=0)) + 1), dtype=np.bool_)
    is_special[ids] = True
    return is_special
