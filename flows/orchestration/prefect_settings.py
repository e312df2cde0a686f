"""Prefect's settings for saelect, and the environment variables that runs and server share."""

import os

from flows.orchestration.terminal import say

FILES_URL = "SAELECT_FILES_URL"
"""Environment: the path under which `saelect serve` serves reports and exports."""

LIVE = "SAELECT_LIVE"
"""Environment: the folder in which every live run holds a lock."""

DATA_FOLDERS = "SAELECT_DATA_FOLDERS"
"""Environment: folders that forms may name files of, beside working folder and workspace."""


def silence_prefect() -> None:
    """Hide Prefect's copy of the progress and errors that the command line prints itself."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")


def announce() -> None:
    """Print which Prefect server is used, and silence Prefect. Call it before Prefect's import."""
    say(f"  Prefect   {os.environ.get('PREFECT_API_URL') or 'ephemeral server, starting'}")
    silence_prefect()
