"""Prefect's switches, set before it is imported: nothing leaves the machine, starts may be slow.

A value that the user has set wins.
"""

import os

_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # A first start creates and migrates a database; the default of 20 s can be too short.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # The page of V2 asks an outside host even with analytics off.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # what is said before the flow starts
    "PREFECT_LOGGING_EXTRA_LOGGERS": "selection,storage,flows",
}


def set_defaults() -> None:
    """Set what the user has not set."""
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)


def leave_the_terminal_alone() -> None:
    """The command line says progress and errors itself; Prefect's copy of them stays away."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
