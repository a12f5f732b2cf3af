"""Files that are written completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from pathlib import Path

__all__ = ["remove_leftovers", "replace_file", "try_to_write"]

_BESIDE = re.compile(r"\.[0-9a-f]{12}\.part")
"""How the name of a file that is being written ends, see :func:`_place_beside`."""


def replace_file(path: str | os.PathLike[str], parts: list[memoryview | bytes]) -> None:
    """Write a temporary file beside `path`, and move it there when it is complete.

    If several processes write the same file, the last one wins.  A file that is
    replaced hands its permissions on.

    Parameters
    ----------
    path : path-like
        The file.
    parts : list of bytes-like
        Its content, in pieces.

    Raises
    ------
    OSError
        If it cannot be written, or is no regular file; what exists is left unchanged.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder", str(path.parent))
    mode = _mode_of_regular(path)
    beside = _place_beside(path)
    try:
        _write_new(beside, parts, mode)
        beside.replace(path)
    except FileExistsError:  # somebody else's
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def try_to_write(path: str | os.PathLike[str]) -> None:
    """Find out whether :func:`replace_file` could write a file, without writing it.

    Parameters
    ----------
    path : path-like
        The file.

    Raises
    ------
    OSError
        If nothing can be written beside it, or it is no regular file.
    """
    path = Path(os.path.realpath(path))
    _mode_of_regular(path)
    beside = _place_beside(path)
    try:
        _write_new(beside, [b"may be written"])
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what is left of processes that were killed while they wrote a file.

    Parameters
    ----------
    path : path-like
        The file.  Nobody else may be writing it now.
    """
    path = Path(os.path.realpath(path))
    with contextlib.suppress(OSError):
        for found in list(path.parent.iterdir()):
            name, _, end = found.name.partition(path.name)
            if not name and _BESIDE.fullmatch(end):
                with contextlib.suppress(OSError):
                    found.unlink()


def _mode_of_regular(path: Path) -> int | None:
    """Return the permissions of a file, None if there is none; refuse devices."""
    try:
        mode = path.stat().st_mode
    except OSError:  # There is none, or only a link that leads nowhere.
        return None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return stat.S_IMODE(mode)


def _place_beside(path: Path) -> Path:
    """Return a name that nobody else writes to, in the folder of a file."""
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}.part")


def _write_new(
    path: Path, parts: list[memoryview | bytes], mode: int | None = None
) -> None:
    # Never through a link, nor over a file that is there; with the permissions that
    # any new file gets.  If some are given, nobody else may read it before it has them.
    def create(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666 if mode is None else 0o600)

    with open(path, "xb", opener=create) as file:
        if mode is not None:
            with contextlib.suppress(OSError):  # Not all file systems have any.
                path.chmod(mode)
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
