"""How many made-up inputs the fuzz tests try, and what those inputs must leave alone.

`make test` tries 300 of each kind, always the same; `make fuzz` 10,000, others each time.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("SAELECT_FUZZ_CASES", "300"))


def fuzz(share: float = 1.0) -> settings:
    """Settings of a test that tries this share of the cases of its kind."""
    return settings(
        max_examples=max(int(CASES * share), 1),
        deadline=None,
        database=None,
        derandomize="SAELECT_FUZZ_CASES" not in os.environ,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink",
             "os.link", "os.chmod", "shutil.rmtree", "shutil.move"}  # fmt: skip
_told: list[str] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _told is None:
        return
    # A file that is opened by its descriptor was told with its path before.
    opens = event == "open" and isinstance(arguments[2], int) and not isinstance(arguments[0], int)
    if event in _CHANGING or (opens and arguments[2] & _WRITING):  # type: ignore[operator]
        _told.append(str(arguments[0]))
    elif event in ("subprocess.Popen", "os.system", "os.exec", "pty.spawn"):
        _told.append(f"process {arguments[0]}")


sys.addaudithook(_audit)


@contextmanager
def nothing_written_outside(folder: Path) -> Iterator[None]:
    """Fail if the block writes a file outside `folder`, changes one there, or starts a process."""
    global _told
    _told = []
    try:
        yield
        inside = (str(folder), "/dev/null")
        # Python keeps the byte code of a module that is first imported in the block.
        told = [name for name in _told if "__pycache__" not in Path(name).parts]
        outside = [name for name in told if not name.startswith(inside)]
        assert not outside, f"outside of {folder}: {outside}"
    finally:
        _told = None


words = st.one_of(st.sampled_from(["", "id", "text", "messages", "role", "content", "a.b", "ü\0"]),
                  st.text(max_size=8))  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), words,
    st.sampled_from([10**30, -1, 2**63, 1e308, "user", "assistant", "\ud800", "NaN", "1e5", ".."]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)
"""Any JSON value, and a few that JSON does not have."""
