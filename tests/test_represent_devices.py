"""One job per device, shown with locks alone: no GPU is needed to see who waits."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.stages.represent import devices

JOB = """
import pathlib, sys
from flows.stages.represent.devices import claim
print(claim(pathlib.Path(sys.argv[1]), ["a", "b"]), flush=True)
sys.stdin.read()
"""


def job(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_every_job_has_a_device_and_the_next_one_waits_for_a_death(tmp_path: Path) -> None:
    first, second = job(tmp_path), job(tmp_path)
    try:
        assert sorted([said(first), said(second)]) == ["0", "1"]
        third = job(tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):
            third.wait(1.5)
        first.kill()
        assert said(third) in ("0", "1")
        third.kill()
    finally:
        for process in (first, second, third):
            process.kill()
            process.communicate()


def test_a_process_claims_once(tmp_path: Path) -> None:
    assert devices.claim(tmp_path, ["a", "b"]) == devices.claim(tmp_path, ["a", "b"]) == 0
