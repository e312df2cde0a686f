"""Whether a sparse autoencoder fits a model, and which of those on this machine would.

No torch here: a run is refused, and the SAEs that would fit are listed, before weights are read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from selection.errors import InputError
from selection.sae.hooks import place_of
from selection.sae.info import SaeInfo
from selection.sae.known import known, matching


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


class HookpointLike(Protocol):
    """What the check needs of a hookpoint."""

    @property
    def site(self) -> str:
        """resid, mlp or attn."""

    @property
    def block(self) -> int:
        """0-based block index."""


def check_fits(
    sae: SaeInfo,
    model: ModelLike,
    hookpoint: HookpointLike,
    local: Sequence[SaeInfo] = (),
) -> None:
    """Refuse an SAE that was made for another width, model or hookpoint.

    local: SAEs to choose from; those that fit are named in the message.
    A model is compared by its weights where the SAE records their hash, else by the last part of
    its name. What is not recorded is not compared. Raises InputError.
    """
    problem = _misfit(sae, model, hookpoint)
    if problem is None:
        return
    fitting = [s for s in local if _misfit(s, model, hookpoint) is None]
    remedy = _choices(fitting) + _published(model.name)
    raise InputError(problem, field="sae", value=sae.path or None, remedy=remedy)


def missing_sae(path: str, why: str, local: Sequence[SaeInfo]) -> InputError:
    """The error for an SAE that is not there; it lists the local ones."""
    return InputError(why, field="sae", value=path, remedy=_choices(local))


def describe(sae: SaeInfo) -> str:
    """One line for people: path, hookpoint, width, latents, k, model."""
    parts = [f"width {sae.d_in}", f"{sae.num_latents} latents"]
    parts += [f"k {sae.k}"] if sae.k else []
    parts += [f"at {sae.hookpoint}"] if sae.hookpoint else []
    parts += [f"of {sae.model_name}"] if sae.model_name else []
    return f"{sae.path} ({', '.join(parts)})"


def _misfit(sae: SaeInfo, model: ModelLike, hookpoint: HookpointLike) -> str | None:
    """What does not fit, as a clause, or None."""
    if sae.d_in != model.d_model:
        return f"the SAE reads activations of width {sae.d_in}, {model.name} has {model.d_model}"
    if sae.model_sha256 is not None:
        if sae.model_sha256 != model.weights_sha256:
            of = f" ({sae.model_name})" if sae.model_name else ""
            return f"the SAE was trained on other weights{of} than those of {model.name}"
    # Without a hash the name decides, but a local folder may be called anything.
    elif sae.model_name and not Path(model.name).exists() and not _same_name(sae, model):
        return f"the SAE was trained on {sae.model_name}, not on {model.name}"
    place = place_of(sae.hookpoint)
    if place is not None and (hookpoint.site, hookpoint.block) != place:
        asked, read = f"{hookpoint.site}@{hookpoint.block}", f"{place[0]}@{place[1]}"
        read = read if read == sae.hookpoint else f"{sae.hookpoint} ({read})"
        return f"the SAE reads {read}, the hookpoint is {asked}"
    return None


def _same_name(sae: SaeInfo, model: ModelLike) -> bool:
    """Whether the last parts of both names agree: hub mirrors differ in the organization."""
    ours, theirs = (name.rsplit("/", 1)[-1].lower() for name in (sae.model_name or "", model.name))
    return ours == theirs


def _published(model: str) -> str:
    """Published SAEs of that model, as a sentence; empty where none is known."""
    found = [f"{c.sae} (resid@{c.block})" for c in matching(model, known())] if model else []
    return f" Published for {model}: {'; '.join(found)}." if found else ""


def _choices(saes: Sequence[SaeInfo]) -> str:
    if not saes:
        return (
            "No SAE on this machine fits; give the folder or hub id of one that was trained on"
            " this model, or train one with `sae: {train: ...}`."
        )
    return "These would fit: " + "; ".join(describe(sae) for sae in saes) + "."
