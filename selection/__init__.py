"""Reading, representing, ranking, picking: arrays and records in and out, nothing is stored.

IN raw rows, models, SAEs, exemplars. OUT picks with their scores. All rooms share `records`; `api`
is for Python users.
"""

import os
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for _name in ("flows", "storage"):
    _spec = find_spec(_name)
    _folders = list(_spec.submodule_search_locations or [str(_spec.origin)]) if _spec else []
    if _folders and Path(_folders[0]).resolve().parent != ROOT:
        raise ImportError(
            f"{_folders[0]} has the name of a package of saelect and is imported instead of it."
            " Rename it, start Python in another folder, or give saelect an environment of its own."
        )

# OpenMP reads it when torch is imported. Threads that wait by spinning take the cores that other
# processes need: beside one busy process, computing vectors became up to seven times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
