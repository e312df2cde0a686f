"""Reading, representing, ranking, picking: arrays and records in and out, nothing is stored.

IN raw rows, models, SAEs, exemplars. OUT picks with their scores. All rooms share `records`; `api`
is for Python users.
"""

import os

# OpenMP reads it when torch is imported. Threads that wait by spinning take the cores that other
# processes need: beside one busy process, computing vectors became up to seven times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
