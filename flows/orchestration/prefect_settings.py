"""Prefect's settings for saelect, and the environment variables that runs and server share."""

import os


def leave_the_terminal_alone() -> None:
    """The command line says progress and errors itself; Prefect's copy of them stays away."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")


FILES_URL = "SAELECT_FILES_URL"
"""Environment: the path under which `saelect serve` serves reports and exports."""

LIVE = "SAELECT_LIVE"
"""Environment: the folder in which every live run holds a lock."""
