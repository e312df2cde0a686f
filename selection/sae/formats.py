"""Sparse autoencoders on disk: the sparsify checkpoint is read and written, as weights only.

A checkpoint is a folder with `cfg.json` and `sae.safetensors` (encoder.weight (M, D),
encoder.bias (M,), W_dec (M, D), b_dec (D,)); saelect adds `saelect.json` with what it knows about
model, hookpoint and training. Nothing is ever unpickled. `normalize_decoder` is a rule of
training only: the stored decoder is used as it is.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selection.errors import InputError
from selection.sae.fit import list_local_saes, missing_sae
from selection.sae.info import CONFIG, RECORD, WEIGHTS, SaeInfo, read_info

log = logging.getLogger(__name__)

_NAMES = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


@dataclass(frozen=True, slots=True, eq=False)
class SparseCoder:
    """A sparse autoencoder: latents = top k of relu((x - decoder_bias) W^T + encoder_bias).

    encoder_weight: (M, D) float32 tensor, M latents over activations of width D.
    encoder_bias:   (M,) float32.
    decoder_weight: (M, D) float32; the reconstruction is latents @ decoder_weight + decoder_bias.
    decoder_bias:   (D,) float32.
    k:              active latents per token.
    info:           where it comes from; `info.sha256` is set.
    """

    encoder_weight: Tensor
    encoder_bias: Tensor
    decoder_weight: Tensor
    decoder_bias: Tensor
    k: int
    info: SaeInfo

    def to(self, device: torch.device | str) -> "SparseCoder":
        """The same coder with its weights on another device."""
        return replace(
            self,
            encoder_weight=self.encoder_weight.to(device),
            encoder_bias=self.encoder_bias.to(device),
            decoder_weight=self.decoder_weight.to(device),
            decoder_bias=self.decoder_bias.to(device),
        )


def make_coder(
    encoder_weight: Tensor,
    encoder_bias: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor,
    *,
    info: SaeInfo,
) -> SparseCoder:
    """A coder of tensors of any float dtype, as float32, with its content hash filled in.

    Shapes as in SparseCoder; sizes, k and activation come from `info`. Raises ValueError when a
    tensor's shape contradicts it or a value is not finite.
    """
    tensors = [
        tensor.detach().to(torch.float32).contiguous()
        for tensor in (encoder_weight, encoder_bias, decoder_weight, decoder_bias)
    ]
    shapes = _shapes(info)
    for name, tensor in zip(_NAMES, tensors, strict=True):
        if tuple(tensor.shape) != shapes[name]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shapes[name]}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite")
    w_enc, b_enc, w_dec, b_dec = tensors
    sha256 = _content_sha256(tensors, info)
    return SparseCoder(w_enc, b_enc, w_dec, b_dec, k=info.k, info=replace(info, sha256=sha256))


def load_sae(
    path: str | Path, revision: str | None = None, local: Sequence[Path] = ()
) -> SparseCoder:
    """Load a sparsify checkpoint on the CPU.

    path:     folder with cfg.json and sae.safetensors, or a folder above a single such one, or a
              hub name, "org/repo" or "org/repo/layers.4".
    revision: of the hub repository.
    local:    folders whose SAEs are listed when this one is not there.
    Raises InputError when it is missing, ambiguous, damaged or of an unsupported kind.
    """
    folder = _find(str(path), revision, local)
    info = read_info(folder)
    file = folder / WEIGHTS
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"the weights cannot be read ({error})", file=file, remedy="Download or train it again."
        ) from None
    missing = [name for name in _NAMES if name not in tensors]
    if missing:
        raise InputError(
            f"the tensors {', '.join(missing)} are missing",
            file=file,
            value=sorted(tensors),
            remedy="Use a checkpoint with encoder and decoder.",
        )
    try:
        w_enc, b_enc, w_dec, b_dec = (tensors[name] for name in _NAMES)
        return make_coder(w_enc, b_enc, w_dec, b_dec, info=info)
    except ValueError as error:
        raise InputError(
            f"the weights do not agree with {CONFIG}: {error}",
            file=file,
            remedy="Download or train it again.",
        ) from None


def save_sparsify(
    coder: SparseCoder, folder: Path, record: Mapping[str, object] | None = None
) -> None:
    """Write a checkpoint that this module and eai-sparsify read.

    record: goes to `saelect.json`; the keys model, model_sha256, hookpoint and licence come back
            as fields of SaeInfo, others (training, quality) as `SaeInfo.record`. Defaults to
            what `coder.info` knows.
    cfg.json is written last: without it the folder is no SAE.
    """
    info = coder.info
    known = {
        "model": info.model_name,
        "model_sha256": info.model_sha256,
        "hookpoint": info.hookpoint,
        "licence": info.licence,
    }
    config = {
        "activation": info.activation,
        "expansion_factor": max(1, round(info.num_latents / info.d_in)),
        "normalize_decoder": True,
        "num_latents": info.num_latents,
        "k": info.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": info.d_in,
    }
    tensors = (coder.encoder_weight, coder.encoder_bias, coder.decoder_weight, coder.decoder_bias)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    temp = folder / f".tmp-{os.getpid()}-{WEIGHTS}"
    save_file({n: t.cpu() for n, t in zip(_NAMES, tensors, strict=True)}, temp)
    os.replace(temp, folder / WEIGHTS)
    full = {key: value for key, value in known.items() if value} | dict(info.record)
    _write_json(folder / RECORD, full | dict(record or {}) | {"sha256": info.sha256})
    _write_json(folder / CONFIG, config)


def _shapes(info: SaeInfo) -> dict[str, tuple[int, ...]]:
    matrix = (info.num_latents, info.d_in)
    return dict(zip(_NAMES, (matrix, matrix[:1], matrix, matrix[1:]), strict=True))


def _content_sha256(tensors: Sequence[Tensor], info: SaeInfo) -> str:
    head = {"k": info.k, "activation": info.activation, "shape": [info.num_latents, info.d_in]}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for tensor in tensors:
        digest.update(tensor.cpu().numpy().data)
    return digest.hexdigest()


def _find(path: str, revision: str | None, local: Sequence[Path]) -> Path:
    """The folder that holds cfg.json and sae.safetensors."""
    folder = Path(path).expanduser()
    if not folder.exists():
        if path.startswith((".", "/", "~")) or path.count("/") < 1:
            raise missing_sae(path, "there is no such folder", list_local_saes(local))
        folder = _download(path, revision, local)
    if (folder / CONFIG).is_file():
        if not (folder / WEIGHTS).is_file():
            raise InputError(
                f"{WEIGHTS} is missing beside {CONFIG}",
                file=folder,
                remedy="Download or train it again; other SAE formats are not read yet.",
            )
        return folder
    inside = list_local_saes([folder]) if folder.is_dir() else []
    if len(inside) == 1:
        return Path(inside[0].path)
    if inside:
        raise missing_sae(path, f"there are {len(inside)} SAEs in this folder; name one", inside)
    raise missing_sae(
        path, f"no SAE here ({CONFIG} beside {WEIGHTS} is expected)", list_local_saes(local)
    )


def _download(name: str, revision: str | None, local: Sequence[Path]) -> Path:
    """Fetch "org/repo[/inner/folder]" from the hub, or find it in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, inner = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    files = [f"{inner}/*" if inner else "*", "config.json", "README.md"]
    try:
        root = Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        log.debug("no SAE from the hub", exc_info=True)
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = {
            401: "the hub asks for a login (`hf auth login`) or has no such repository",
            403: "the hub refuses access; accept the repository's terms on its page first",
            404: "neither a folder here nor a repository on the hub",
        }.get(
            status or 0,
            "not a folder here, and it could not be fetched from the hub"
            f" ({type(error).__name__}: {str(error).splitlines()[0][:120]})",
        )
        raise missing_sae(name, why, list_local_saes(local)) from None
    return root / inner


def _write_json(file: Path, value: Mapping[str, object]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
