"""The environment variables that runs and server share."""

FILES_URL = "SAELECT_FILES_URL"
"""Environment: the path under which `saelect serve` serves reports and exports."""

LIVE = "SAELECT_LIVE"
"""Environment: the folder in which every live run holds a lock."""

DATA_FOLDERS = "SAELECT_DATA_FOLDERS"
"""Environment: folders that forms may name files of, beside working folder and workspace."""
