"""`benchmarks/gpu.py` to its end, on a device made of the CPU's memory."""

import json
import sys

import pytest

from benchmarks import gpu
from selection.activations import packing
from tests.cuda_cases import device
from tests.fake_cuda import FakeCuda
from tests.test_activations_flex import dense

__all__ = ["device"]  # a fixture


def test_ways_are_timed_on_the_device(
    device: FakeCuda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gpu.SIZES, "quick", (2, 32, 64, 4, 10))
    for way in ("padded", "tf32"):  # the others are enough
        monkeypatch.delitem(gpu.WAYS, way)
    monkeypatch.setattr(packing, "attend", dense)
    monkeypatch.setattr(gpu, "agreement", lambda _: {"bfloat16_on_device": 0.5})
    monkeypatch.setattr(sys, "argv", ["gpu", "--quick"])
    gpu.main()
    *_, last = capsys.readouterr().out.splitlines()
    ways = json.loads(last)["ways"]
    assert list(ways) == list(gpu.WAYS)
    for way in ways.values():
        assert (way["device"], way["dtype"]) == ("fake", "bfloat16")
        assert (way["reason"], way["plan_reduced"]) == ("", False)
        assert way["tokens_per_s"] > 0
        assert way["tokens_per_batch"] == 65_536
    assert ways["flex"]["batching"] == "truncated/shared"
    assert ways["bfloat16"]["batching"] == "truncated/padded"
