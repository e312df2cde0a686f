"""Training state on disk: one file, either the old state or the new one, never half of each."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

STATE_NAME = "state.pt"
LOG_NAME = "log.jsonl"


@dataclass
class Progress:
    """Where a run stands: optimizer steps, predicted tokens, seconds spent, and the next batch."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    epoch: int = 0
    batch: int = 0


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_state(
    folder: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
    settings: dict[str, Any],
) -> None:
    """Write all that a resumed run needs: temporary file, fsync, rename."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "rng": torch.get_rng_state(),
        "progress": asdict(progress),
        "settings": settings,
    }
    temporary = folder / f"{STATE_NAME}.tmp"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / STATE_NAME)
    sync_folder(folder)


def load_state(
    folder: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    settings: dict[str, Any],
) -> Progress:
    """Restore a saved run into `model` and `optimizers`; a fresh start where there is none.

    Raises ValueError if the saved run was started with other settings.
    """
    path = folder / STATE_NAME
    if not path.exists():
        return Progress()
    state = torch.load(path, weights_only=True)
    if state["settings"] != settings:
        changed = sorted(k for k in settings if state["settings"].get(k) != settings[k])
        raise ValueError(
            f"{path} belongs to a run with other settings {changed}: use another state folder"
        )
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    torch.set_rng_state(state["rng"])
    return Progress(**state["progress"])


def append_log(folder: Path, record: dict[str, Any]) -> None:
    """Add one JSON line to the loss curve."""
    with (folder / LOG_NAME).open("a") as file:
        file.write(json.dumps(record) + "\n")


def trim_log(folder: Path, step: int) -> None:
    """Drop what was logged after the state that training resumes from, and half-written lines."""
    path = folder / LOG_NAME
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step:
            kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept))
    os.replace(temporary, path)
