"""Flows, config, orchestration, commands: what runs the other rooms. One stage a file.

Prefect reads its settings when it is imported, so they are set here, before any module of this
package: nothing leaves the machine, and a slow first start is no error. What the user has set wins.
"""

import os
from pathlib import Path

import selection

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # A first start creates and migrates a database; the default of 20 s can be too short.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # The page of V2 asks an outside host even with analytics off.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # messages before the flow starts
    "PREFECT_LOGGING_EXTRA_LOGGERS": "selection,storage,flows",
}

for _key, _value in SETTINGS.items():
    os.environ.setdefault(_key, _value)

if getattr(selection, "ROOT", None) != Path(__file__).resolve().parent.parent:
    raise ImportError(
        f"{next(iter(selection.__path__), selection)} has the name of a package of saelect and is"
        " imported instead of it. Rename it, start Python in another folder, or give saelect an"
        " environment of its own."
    )
