"""Llamascopium 2.x and Llama Scope R1: recognized, and refused until their reader is there."""

from pathlib import Path

from selection.sae.coder import SparseCoder
from selection.sae.info import SaeInfo
from selection.sae.loaders.files import refuse


def read_info(place: Path) -> SaeInfo:
    """Raises InputError."""
    raise refuse(place, "Llamascopium 2.x checkpoints are not read yet")


def load(place: Path) -> SparseCoder:
    """Raises InputError."""
    raise refuse(place, "Llamascopium 2.x checkpoints are not read yet")
