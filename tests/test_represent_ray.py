"""Ray: refusals without it, and the bytes of one machine with it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from flows.stages.represent import ray as on_ray
from selection.core.errors import InputError

HAS_RAY = find_spec("ray") is not None


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"saelect\[ray\]"):
        on_ray.connect()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
@pytest.mark.skipif("SAELECT_TEST_RAY" not in os.environ, reason="set SAELECT_TEST_RAY to run it")
def test_a_cluster_that_loses_a_worker_writes_the_bytes_of_one_machine() -> None:
    root = Path(__file__).resolve().parent.parent
    shown = subprocess.run(
        [sys.executable, "-m", "tests.ray_cluster"],
        cwd=root, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "killed one of two workers" in shown.stdout
    assert "identical bytes" in shown.stdout
