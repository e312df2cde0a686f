"""One job per GPU: the first model that a process loads on CUDA claims a device for its lifetime.

The claim is a locked file of the machine, named after the device: jobs of all workspaces see it,
and it ends with the process, whatever ends it. Selections that load no model, and those on CPU,
wait for nobody. Containers see each other's claims where they share the folder.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from selection.core.errors import InputError
from storage.files import locks as lock

log = logging.getLogger(__name__)

LOCKS = Path("/tmp/saelect-gpus")
"""Of this machine: a job may set another TMPDIR, and accounts have other homes."""
POLL_S = 1.0
_claims = ExitStack()  # closed by the end of the process alone
_claimed: dict[Path, int] = {}  # by folder of the locks


def claim_device(device: str) -> None:
    """Wait for a free GPU and make it this process's; nothing where `device` means no GPU."""
    if device not in ("auto", "cuda"):
        return
    import torch

    if not torch.cuda.is_available():
        return
    devices = range(torch.cuda.device_count())
    names = [str(torch.cuda.get_device_properties(number).uuid) for number in devices]
    torch.cuda.set_device(claim(LOCKS, names))


def claim(folder: Path, names: Sequence[str]) -> int:
    """Number of the device that this process has claimed; waits as long as all are taken."""
    if folder not in _claimed:
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            folder.chmod(0o1777)  # every account locks here, and removes its own files alone
        is_told = False
        while (number := _first_free(folder, names)) is None:
            if not is_told:
                log.info("waiting for a GPU: all %d are taken by other jobs", len(names))
                is_told = True
            time.sleep(POLL_S)
        _claimed[folder] = number
    return _claimed[folder]


def _first_free(folder: Path, names: Sequence[str]) -> int | None:
    for number, name in enumerate(names):
        try:
            _claims.enter_context(lock.held(folder / f"gpu-{name}.lock", 0.0))
        except InputError:  # somebody else's
            continue
        return number
    return None
