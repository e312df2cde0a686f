"""The task decorator of stages: nothing is cached, transient I/O errors are retried."""

import errno
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")

DELAYS_S = [2.0, 15.0]
_TRANSIENT = {
    errno.EAGAIN,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EREMOTEIO,
}
"""Errors of disks and networks after which a later try may succeed; a full disk is none."""


def stage_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """The decorator of a stage. Finished work is in files, so a retry resumes."""
    return task(
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(DELAYS_S),
        retry_delay_seconds=DELAYS_S,
        retry_condition_fn=_failed_transiently,
    )


def is_transient(error: BaseException) -> bool:
    """Whether an error is of input or output, and may not come again."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT


def _failed_transiently(task: Any, run: Any, state: Any) -> bool:
    del task, run
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)
