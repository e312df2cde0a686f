"""Whether a sparse autoencoder fits a model, and which of those on this machine would.

No torch here: a run is refused, and the SAEs that would fit are listed, before weights are read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint, hookpoint_of
from selection.sae.metadata import SaeInfo
from selection.sae.published import combinations, matching

_MAX_LISTED = 10
_ANOTHER = (
    "the folder or hub id of one that was trained on this model, or train one with"
    " `sae: {train: ...}`."
)


ALIASES = {
    "gpt2-small": "gpt2",
    "gemma-2-2b-pt": "gemma-2-2b",
    "gemma-2-9b-pt": "gemma-2-9b",
    "gemma-2-27b-pt": "gemma-2-27b",
    "mistral-7b": "mistral-7b-v0.1",
    "meta-llama-3-8b": "llama-3-8b",
    "meta-llama-3.1-8b": "llama-3.1-8b",
    "meta-llama-3.1-8b-instruct": "llama-3.1-8b-instruct",
}
"""Other names of the same weights, as SAE libraries and the hub use them."""


class ModelLike(Protocol):
    """What the check needs of a resolved language model."""

    @property
    def name(self) -> str:
        """Hub id or path, as the user gave it."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weight files, in hex."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""

    @property
    def d_heads(self) -> int | None:
        """Width of the attention heads' outputs side by side, where it is known."""

    @property
    def d_mlp(self) -> int | None:
        """Hidden units of an MLP, where it is known."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""


def check_fits(
    sae: SaeInfo,
    model: ModelLike,
    hookpoint: Hookpoint | None,
    local: Sequence[SaeInfo] = (),
    *,
    written: str = "",
    field: str = "sae",
    trust_model: bool = False,
) -> None:
    """Refuse an SAE that was made for another width, model or hookpoint.

    hookpoint: None where the config names none: the SAE's own is meant, if the model has it.
    local: SAEs to choose from; those that fit are named in the message.
    written: the hookpoint as the user wrote it, e.g. a depth; named where it is spelled otherwise.
    field: key of the config that names the SAE.
    trust_model: the user answers for the model: width and blocks alone are compared.
    A model is compared by its weights where the SAE records their hash, else by the last part of
    its name. What is not recorded is not compared. Raises InputError.
    """
    problem, remedy = _other_shape(sae, model), ""
    if problem is None and not trust_model:
        problem = _other_name(sae, model)
        remedy = f"If {model.name} is the same model, set `sae: {{trust_model: true}}`. "
    fitting = [s for s in local if _other_model(s, model) is None]
    same_hookpoint = [
        s for s in fitting if hookpoint is None or _other_hookpoint(s, hookpoint) is None
    ]
    if problem is not None:
        remedy += _choices(same_hookpoint)
        if fitting and not same_hookpoint:
            remedy += f" These would fit, at their own hookpoint: {_listed(fitting)}"
    elif hookpoint is not None:
        problem = _other_hookpoint(sae, hookpoint, written)
        remedy = f"Leave `model.hookpoint` out, or write `{hookpoint_of(sae.hookpoint)}`."
        remedy += f" {_choices(same_hookpoint)}" if same_hookpoint else ""
    if problem is None:
        return
    remedy += _published(model.name)
    raise InputError(problem, field=field, value=sae.path or None, remedy=remedy)


def trained_at(sae: SaeInfo, field: str = "hookpoint") -> Hookpoint:
    """Where the SAE was trained. Raises InputError, naming `field`, where it does not say."""
    hookpoint = hookpoint_of(sae.hookpoint)
    if hookpoint is None:
        raise no_hookpoint(field)
    return hookpoint


def no_hookpoint(field: str) -> InputError:
    """The error for a hookpoint that neither the config nor an SAE names."""
    return InputError(
        "is missing, and the SAE does not say where it was trained",
        field=field,
        remedy="Name it, for example `resid@0.66` or `resid@12`.",
    )


def missing_sae(path: str, why: str, local: Sequence[SaeInfo], remedy: str = "") -> InputError:
    """The error for an SAE that is not there; it lists the local ones, which nobody compared."""
    others = f"These are on this machine: {_listed(local)}" if local else f"Give {_ANOTHER}"
    return InputError(why, field="sae", value=path, remedy=f"{remedy} {others}".strip())


def several_saes(
    path: str, n_there: int, readable: Sequence[SaeInfo], model: ModelLike | None = None
) -> InputError:
    """The error for a folder of several SAEs; it lists those that fit the model, if that is known.

    readable: those of the `n_there` whose configuration could be read. All of them are listed
    where none fits or no model is known.
    """
    fitting = [s for s in readable if model is not None and _other_model(s, model) is None]
    if fitting:
        remedy = _choices(fitting)
    else:
        none_fits = "" if model is None else f"None of them fits {model.name}. "
        remedy = f"{none_fits}These are there: {_listed(readable)}"
    return InputError(
        f"there are {n_there} SAEs in this folder; name one",
        field="sae",
        value=path,
        remedy=remedy,
    )


def describe(sae: SaeInfo) -> str:
    """One line for people: path, hookpoint, width, latents, k, model."""
    parts = [f"width {sae.d_in}", f"{sae.num_latents} latents"]
    parts += [f"k {sae.k}"] if sae.k else []
    parts += [f"at {sae.hookpoint}"] if sae.hookpoint else []
    parts += [f"of {sae.model_name}"] if sae.model_name else []
    return f"{sae.path} ({', '.join(parts)})"


def model_note(sae: SaeInfo, model: ModelLike, trust_model: bool) -> str | None:
    """What a reader of the result should know about model and SAE, as a sentence; else None."""
    other = _other_name(sae, model)
    if other is not None and trust_model:
        return f"{other[0].upper()}{other[1:]}; it was used all the same (sae.trust_model)."
    if sae.model_name and sae.model_sha256 is None and Path(model.name).exists():
        return (
            f"The SAE was trained on {sae.model_name}. The model is a local folder: its width and"
            " number of blocks fit, and more cannot be known."
        )
    return None


def _other_model(sae: SaeInfo, model: ModelLike) -> str | None:
    """Why the SAE does not fit the model, wherever that is read, as a clause; or None."""
    return _other_shape(sae, model) or _other_name(sae, model)


def _other_shape(sae: SaeInfo, model: ModelLike) -> str | None:
    """That width or depth do not fit, as a clause; or None."""
    hookpoint = hookpoint_of(sae.hookpoint)
    others = {"heads": model.d_heads, "mlp_hidden": model.d_mlp}
    width: int | None = model.d_model
    if hookpoint is not None and hookpoint.site in others:
        width = others[hookpoint.site] or sae.d_in
    if sae.d_in != width and (hookpoint is not None or sae.d_in not in others.values()):
        return f"the SAE reads activations of width {sae.d_in}, {model.name} has {width}"
    if hookpoint is not None and hookpoint.block >= model.n_layers:
        return f"the SAE reads {_shown_hookpoint(sae)}, {model.name} has {model.n_layers} blocks"
    return None


def _other_name(sae: SaeInfo, model: ModelLike) -> str | None:
    """That the SAE names another model, by its weights or its name, as a clause; or None."""
    if sae.model_sha256 is not None:
        if sae.model_sha256 != model.weights_sha256:
            of = f" ({sae.model_name})" if sae.model_name else ""
            return f"the SAE was trained on other weights{of} than those of {model.name}"
    # Without a hash the name decides, but a local folder may be called anything.
    elif sae.model_name and not Path(model.name).exists() and not _same_name(sae, model):
        return f"the SAE was trained on {sae.model_name}, not on {model.name}"
    return None


def _other_hookpoint(sae: SaeInfo, hookpoint: Hookpoint, written: str = "") -> str | None:
    """That the SAE reads another hookpoint, as a clause; or None."""
    own = hookpoint_of(sae.hookpoint)
    if own is None or hookpoint == own:
        return None
    meant = f"{written} ({hookpoint})" if written not in ("", str(hookpoint)) else str(hookpoint)
    return f"the SAE reads {_shown_hookpoint(sae)}, the hookpoint is {meant}"


def _shown_hookpoint(sae: SaeInfo) -> str:
    """The SAE's hookpoint, with the spelling of configs beside its own where they differ."""
    spelled = str(hookpoint_of(sae.hookpoint) or "")
    return spelled if spelled == sae.hookpoint else f"{sae.hookpoint} ({spelled})"


def _same_name(sae: SaeInfo, model: ModelLike) -> bool:
    """Whether the last parts of both names agree: hub mirrors differ in the organization."""
    names = (name.rsplit("/", 1)[-1].lower() for name in (sae.model_name or "", model.name))
    ours, theirs = (ALIASES.get(name, name) for name in names)
    return ours == theirs


def _published(model: str) -> str:
    """Published SAEs of that model, as a sentence; empty where none is known."""
    published = (
        [f"{c.sae} (resid@{c.block})" for c in matching(model, combinations())] if model else []
    )
    return f" Published for {model}: {'; '.join(published)}." if published else ""


def _choices(fitting: Sequence[SaeInfo]) -> str:
    if not fitting:
        return f"No SAE that was found here fits; give {_ANOTHER}"
    return f"These would fit: {_listed(fitting)}"


def _listed(saes: Sequence[SaeInfo]) -> str:
    """The first few, described, and how many more there are; a sentence's end."""
    more = f"; and {len(saes) - _MAX_LISTED} more" if len(saes) > _MAX_LISTED else ""
    return "; ".join(describe(sae) for sae in saes[:_MAX_LISTED]) + more + "."
