"""Names that the server and the runs share; nothing is imported for them."""

FILES_URL = "SAELECT_FILES_URL"
"""Environment: the path under which `saelect serve` serves reports and exports."""

LIVE = "SAELECT_LIVE"
"""Environment: the folder in which every live run holds a lock."""
