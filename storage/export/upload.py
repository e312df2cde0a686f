"""Exports at an address: the folder is written here first, then copied whole."""

from pathlib import Path

from selection.core.errors import InputError
from selection.core.redaction import without_secrets


def copy_to_url(folder: Path, names: list[str], url: str) -> None:
    """Copy files and folders of an export to an address that fsspec opens, the manifest last.

    Raises InputError where the address cannot be written.
    """
    from fsspec.core import url_to_fs

    try:
        filesystem, target = url_to_fs(url)
        filesystem.makedirs(target, exist_ok=True)
        for name in names:
            destination = f"{target.rstrip('/')}/{name}"
            filesystem.put(str(folder / name), destination, recursive=(folder / name).is_dir())
    except (OSError, ImportError, ValueError) as error:
        raise InputError(
            f"cannot be written ({error})",
            file=without_secrets(url),
            field="--out",
            remedy="Check the address and its credentials; the files are in"
            f" {folder}. A missing package is named by fsspec, e.g. s3fs.",
        ) from None
