"""What a stage tries again, and what it does not."""

import errno

import pytest

from flows.orchestration.signals import TimeLimitExceeded
from flows.orchestration.stage_task import DELAYS_S, is_transient, stage_task
from selection.core.errors import InputError


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(), TimeoutError(), OSError(errno.ESTALE, "Stale file handle")],
)
def test_trouble_of_networks_and_disks_is_tried_again(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"), FileNotFoundError(), PermissionError(),
        MemoryError(), RuntimeError("CUDA out of memory"), TimeLimitExceeded(), ValueError(),
        InputError("wrong", remedy="Correct it."),
    ],
)  # fmt: skip
def test_what_stays_wrong_is_not(error: BaseException) -> None:
    assert not is_transient(error)


def test_every_stage_has_these_rules_and_keeps_no_results() -> None:
    @stage_task("a")
    def stage() -> None: ...

    assert (stage.retries, stage.retry_delay_seconds) == (len(DELAYS_S), DELAYS_S)
    assert stage.persist_result is False
