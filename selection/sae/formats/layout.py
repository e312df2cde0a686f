"""A published SAE format as a table, and the engine that reads every such table.

No torch is imported before weights are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selection.core.errors import InputError
from selection.models.hookpoints import canonical, refuse_inputs
from selection.sae.metadata import SaeInfo, licence_of, read_object, repository_of

if TYPE_CHECKING:
    from selection.sae.coder import SparseCoder
    from selection.sae.formats.weight_files import Weights

ONE_PLACE = "this is a transcoder: it reads one place and predicts another"
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Names:
    """What the tensors of one layout are called.

    transposed:    those of them that are stored as (D, M).
    threshold, log_threshold: of jumprelu; the first that is there, the second's exponential. Both
                   are "" where the configuration has it.
    magnitudes:    of gated: logarithm of the scale, and bias; b_enc is then the gate's.
    """

    w_enc: str
    b_enc: str
    w_dec: str
    b_dec: str
    transposed: tuple[str, ...] = ()
    threshold: str = "threshold"
    log_threshold: str = "log_threshold"
    magnitudes: tuple[str, str] | None = None

    @property
    def main(self) -> tuple[str, str, str, str]:
        """Encoder, its bias, decoder, its bias."""
        return self.w_enc, self.b_enc, self.w_dec, self.b_dec


@dataclass(frozen=True, slots=True)
class Choice:
    """A key of the configuration that decides a convention.

    values:  what it may be, in small letters, and what that is in SaeInfo.
    problem: why any other value is refused; because: why some are.
    default: the value where the key is missing; None refuses that.
    """

    key: str
    values: Mapping[str, str]
    problem: str
    default: str | None = None
    because: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """One published format.

    name, title: as in SaeInfo.family, and for people.
    files:    all of them are in the SAE's folder, the configuration first and the weights last;
              () for an SAE that is a file of its own.
    loads, refuses, oracle: in words: what is read, what is not, what encodings are compared with.
    names:    of the tensors, by variant; `variant` says which one a checkpoint is. A bias that no
              file has is called "".
    facts:    fields of SaeInfo that the table does not say; may refuse.
    constants: fields of SaeInfo that are the same for all SAEs of the format.
    activation, input_norm: where the configuration decides them.
    hooks:    keys of the place that is read, and of the one that is predicted: they must agree.
    k_key:    key of the number of active latents.
    bias_key: key that says whether there is a decoder bias; where it is missing, the tensors do.
    refused:  keys that must not be set, and why.
    modern:   rewrites the configuration of an older version.
    needs_config: whether the configuration must be there; else it may be, and `facts` knows how.
    marks:    tells whether a folder with these files is of the format at all.
    convert:  changes the weights from the format's conventions to those of SparseCoder.
    """

    name: str
    title: str
    files: tuple[str, ...]
    loads: str
    refuses: str
    oracle: str
    names: Mapping[str, Names]
    facts: "Callable[[Checkpoint], Mapping[str, Any]]"
    variant: "Callable[[Checkpoint], str]" = lambda _: ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    activation: Choice | None = None
    input_norm: Choice | None = None
    hooks: tuple[str, ...] = ()
    k_key: str = "k"
    bias_key: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    modern: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config
    needs_config: bool = True
    marks: Callable[[Path], bool] = lambda _: True
    convert: "Callable[[Checkpoint, SaeInfo, Weights], None]" = lambda *_: None

    def is_at(self, folder: Path) -> bool:
        """Whether the folder holds all files of the format."""
        needed = self.files if self.needs_config else self.files[-1:]
        is_there = bool(needed) and all((folder / name).is_file() for name in needed)
        return is_there and self.marks(folder)


class Checkpoint:
    """The files of one SAE, each read once, when it is needed."""

    def __init__(self, path: Path, layout: Layout) -> None:
        """path: a folder, or the file of a format without folders."""
        self.path, self.layout = path, layout
        self.config_file = path / layout.files[0] if layout.files else path
        self.weights_file = path / layout.files[-1] if layout.files else path
        self.source = repository_of(path) or path.absolute().as_posix()
        """Name of the hub repository, else the path: some formats say the rest there alone."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration; {} where the format has none."""
        if self.config_file == self.weights_file:
            return {}
        if not self.layout.needs_config and not self.config_file.is_file():
            return {}
        return self.layout.modern(read_object(self.config_file))

    @cached_property
    def contents(self) -> dict[str, Any]:
        """Everything in the file of weights."""
        from selection.sae.formats.weight_files import read_weights

        return read_weights(self.weights_file)

    @cached_property
    def header(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of every tensor; reads no more of the file than it must."""
        from selection.sae.formats.weight_files import safetensors_shapes

        if self.weights_file.suffix == ".safetensors":
            return safetensors_shapes(self.weights_file)
        return {
            name: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in self.contents.items()
            if hasattr(value, "shape")
        }

    @property
    def names(self) -> Names:
        """Of the tensors, in this variant of the layout."""
        return self.layout.names[self.layout.variant(self)]

    def beside(self, name: str) -> dict[str, Any]:
        """Another JSON file of the folder; {} where there is none."""
        return read_object(self.path / name) if (self.path / name).is_file() else {}

    def refuse(
        self, problem: str, key: str | None = None, value: object = None, *, weights: bool = False
    ) -> InputError:
        """The error for what cannot be read correctly; `value` defaults to that of the key.

        weights: the file of weights is at fault, not the configuration.
        """
        if key is not None and value is None and not weights:
            value = self.config.get(key)
        return InputError(
            problem,
            file=self.weights_file if weights else self.config_file,
            field=key,
            value=value,
            remedy="This SAE cannot be used; choose another (`saelect models` lists formats).",
        )

    def whole(self, key: str) -> int:
        """A key that must be a whole number of 1 or more. Raises InputError."""
        value = self.config.get(key)
        if type(value) is not int or value < 1:
            raise self.refuse("expected a whole number, 1 or more", key)
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """A key that must be true or false. Raises InputError."""
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            raise self.refuse("expected true or false", key)
        return value

    def chosen(self, choice: Choice) -> str:
        """What a key of the configuration decides. Raises InputError."""
        value = self.config.get(choice.key)
        value = str(choice.default if value is None else value).lower()
        if value not in choice.values:
            raise self.refuse(choice.because.get(value, choice.problem), choice.key)
        return choice.values[value]

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, M) of the encoder. Raises InputError."""
        shape = self.shape(self.names.w_enc)
        return shape if "w_enc" in self.names.transposed else shape[::-1]

    def shape(self, name: str) -> tuple[int, int]:
        """Of a matrix. Raises InputError."""
        if name not in self.header:
            raise self.refuse(
                f"the tensors {name} are missing", value=sorted(self.header), weights=True
            )
        match self.header[name][0]:
            case (rows, columns) if rows and columns:
                return rows, columns
            case other:
                raise self.refuse("expected a matrix", name, list(other), weights=True)


def read_info(path: Path, layout: Layout) -> SaeInfo:
    """What is known about an SAE before its weights are read. Raises InputError."""
    return _info(Checkpoint(path, layout))


def load(path: Path, layout: Layout) -> "SparseCoder":
    """Read an SAE whole. Raises InputError."""
    from selection.sae.formats.weight_files import main_weights

    sae = Checkpoint(path, layout)
    info = _info(sae)
    weights = main_weights(sae, info)
    layout.convert(sae, info, weights)
    return weights.coder(sae.weights_file, replace(info, input_scale=weights.input_scale))


def _info(sae: Checkpoint) -> SaeInfo:
    layout, config = sae.layout, sae.config
    for key, problem in layout.refused.items():
        if config.get(key):
            raise sae.refuse(problem, key)
    facts = dict(layout.constants)
    for name, choice in (("activation", layout.activation), ("input_norm", layout.input_norm)):
        if choice is not None:
            facts[name] = sae.chosen(choice)
    if layout.hooks:
        facts["hookpoint"] = _hookpoint(sae, layout.hooks)
    facts |= layout.facts(sae)
    if "d_in" not in facts:
        facts["d_in"], n_latents = sae.sizes
        facts.setdefault("num_latents", n_latents)
        dtype = sae.header[sae.names.w_enc][1]
        facts["dtype"] = _DTYPES.get(dtype, dtype)
    if facts["activation"] in ("topk", "groupmax", "seminmf", "codebook"):
        k = facts.get("k", config.get(layout.k_key))
        facts["k"] = _checked_k(sae, k, facts["num_latents"])
    elif facts["activation"] != "matching_pursuit":
        facts["k"] = 0
    if not facts.get("licence"):
        facts["licence"] = licence_of(path if (path := sae.path).is_dir() else path.parent)
    return SaeInfo(path=str(sae.path), family=layout.name, **facts)


def _hookpoint(sae: Checkpoint, hooks: Sequence[str]) -> str | None:
    """The one place that is read and predicted."""
    values = [sae.config.get(key) for key in hooks]
    if values[-1] is not None and values[0] != values[-1]:
        raise sae.refuse(ONE_PLACE, hooks[0])
    refuse_inputs(str(values[0] or ""), sae.config_file, hooks[0])
    return canonical(str(values[0])) if values[0] else None


def _checked_k(sae: Checkpoint, k: object, most: int) -> int:
    """Active latents per token. Raises InputError."""
    if isinstance(k, float) and k.is_integer():
        k = int(k)
    if type(k) is not int or not 1 <= k <= most:
        raise sae.refuse(f"expected 1 to {most}", sae.layout.k_key, k)
    return k
