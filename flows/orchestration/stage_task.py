"""Every stage is a Prefect task of one kind: nothing cached, only passing trouble tried again."""

import errno
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")

DELAYS_S = [2.0, 15.0]
_PASSING = {
    errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO,
}  # fmt: skip
"""What network disks and networks say when a later try may succeed; a full disk is not among it."""


def stage_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """The decorator of a stage. What a stage has finished is in files, so a retry resumes."""
    return task(
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(DELAYS_S),
        retry_delay_seconds=DELAYS_S,
        retry_condition_fn=_failed_in_passing,
    )


def is_passing(error: BaseException) -> bool:
    """Whether an error is of input or output and may be gone a moment later.

    Wrong input, memory, limits of time and mistakes in code stay what they are.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


def _failed_in_passing(task: Any, run: Any, state: Any) -> bool:  # noqa: ANN401 - Prefect's own
    del task, run
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_passing(error)
