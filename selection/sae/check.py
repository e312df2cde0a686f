"""Whether an SAE does on these activations what it was published to do."""

from selection.sae.info import SaeInfo
from selection.sae.quality import SaeQuality

L0_TOLERANCE = 0.5
FVU_LIMIT = 0.9


def problems(info: SaeInfo, found: SaeQuality) -> list[str]:
    """What is wrong, one clause each; empty when all is well.

    An SAE that is read by other conventions than its own, or on another place, model or kind of
    text, shows it here: its active latents are half or half as many again as declared, or its
    reconstructions explain (almost) nothing.
    """
    clauses, expected = [], info.expected_l0
    if expected is not None and abs(found.l0 - expected) > L0_TOLERANCE * expected:
        clauses.append(f"{found.l0:.1f} latents are active per token, {expected:g} are declared")
    if not found.fvu < FVU_LIMIT:
        clauses.append(
            f"its reconstructions leave {found.fvu:.2f} of the variance unexplained (FVU)"
        )
    return clauses
