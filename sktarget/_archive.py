"""Plain values and arrays in one file: no pickle, a checksum, written all or nothing.

An archive is an uncompressed NumPy ``.npz`` file.  Its member ``header`` is JSON; the
others are the arrays that the header refers to.  The comment at the end of the zip file
is the SHA-256 of all bytes before it, as 64 hexadecimal digits, so that a truncated or
altered file is detected before its content is parsed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import tokenize
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sktarget._files import replace_file

__all__ = [
    "FORMAT_VERSION",
    "is_plain",
    "read",
    "refusing",
    "write",
]

FORMAT_VERSION = 1
"""Increased whenever older versions of the package cannot read new files."""

_DIGITS = 64
_MAGIC = "sktarget"
# What a file that was made to look like one of ours may lead to when it is read.
_FORGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    StopIteration,
    SyntaxError,  # NumPy evaluates the headers of arrays.
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)


def write(path: str | os.PathLike[str], kind: str, content: dict[str, Any]) -> None:
    """Write a dict to a file, completely or not at all.

    Parameters
    ----------
    path : path-like
        The file; an existing one is replaced atomically.
    kind : str
        What the file holds; checked when it is read.
    content : dict
        Nested dicts, lists and tuples of None, booleans, numbers, strings and arrays.

    Raises
    ------
    TypeError
        If `content` holds anything else.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/file", "numbers", {"odd": np.array([1, 3]), 2: (4,)})
    ...     read(f"{folder}/file", "numbers")
    {'odd': array([1, 3]), 2: (4,)}
    """
    arrays: list[NDArray[Any]] = []
    header = {
        "magic": _MAGIC,
        "kind": kind,
        "format": FORMAT_VERSION,
        "content": _encode(content, arrays),
    }
    text = json.dumps(header, allow_nan=False).encode()
    members: dict[str, Any] = {"header": np.frombuffer(text, np.uint8)}
    members |= {f"array_{k}": a for k, a in enumerate(arrays)}
    buffer = io.BytesIO()
    try:
        with _ZipFile(buffer, "w") as file:
            file.comment = bytes(_DIGITS)  # room for the checksum
            for name, array in members.items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    except ValueError as error:
        # After Ctrl-C within a member, zipfile raises a ValueError that hides it.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    body = buffer.getbuffer()[:-_DIGITS]
    replace_file(path, [body, hashlib.sha256(body).hexdigest().encode()])


class _ZipFile(zipfile.ZipFile):
    """A zip file that must be closed explicitly.

    A KeyboardInterrupt inside a ``__del__`` written in Python is lost (6 of 356 in a
    stress test); a C function in its place runs no bytecode to interrupt.
    """

    __del__ = object.__sizeof__  # type: ignore[assignment]


def read(
    path: str | os.PathLike[str], kind: str, names: Iterable[str] = ()
) -> dict[str, Any]:
    """Read what :func:`write` wrote.

    Parameters
    ----------
    path : path-like
        The file.
    kind : str
        What it must hold.
    names : iterable of str
        What its content must have, at least.

    Returns
    -------
    dict
        The content; its arrays are writeable, and in memory.

    Raises
    ------
    ValueError
        If the file is damaged, foreign, forged, of another kind, or in a later format.
    OSError
        If it cannot be read.
    """
    data = Path(path).read_bytes()
    body, digest = data[:-_DIGITS], data[-_DIGITS:]
    if (
        not data.startswith(b"PK")
        or hashlib.sha256(body).hexdigest().encode() != digest
    ):
        raise ValueError(
            f"{os.fspath(path)!r} is damaged, or not a file written by sktarget: its "
            "checksum does not match its content"
        )
    with refusing(path):
        arrays = _arrays(data)
        text = arrays.pop("header", None)
        header = {} if text is None else dict(json.loads(bytes(text)))
    if header.get("magic") != _MAGIC or header.get("kind") != kind:
        raise ValueError(
            f"{os.fspath(path)!r} does not hold a sktarget {kind} but "
            f"{header.get('kind', 'something else')!r}"
        )
    with refusing(path):
        is_later = header["format"] > FORMAT_VERSION
    if is_later:
        raise ValueError(
            f"{os.fspath(path)!r} has format {header['format']}, and this version "
            f"of sktarget reads formats up to {FORMAT_VERSION}: use a later one"
        )
    with refusing(path):
        content: dict[str, Any] = _decode(header["content"], arrays)
        lacking = sorted(set(names) - content.keys())
        if lacking:
            raise KeyError(*lacking)
    return content


@contextlib.contextmanager
def refusing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn any error raised while a file is parsed into a ValueError that names it.

    A checksum that matches does not prove that :func:`write` wrote the file.

    Parameters
    ----------
    path : path-like
        The file.

    Yields
    ------
    None
        While the file is made sense of.

    Raises
    ------
    ValueError
        In place of what is raised meanwhile.
    """
    try:
        yield
    except _FORGED as error:
        raise ValueError(
            f"{os.fspath(path)!r} is damaged, or no file that sktarget has written: "
            f"{type(error).__name__}: {error}"
        ) from error


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the members of a file, which take no more memory than the file itself."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        members = file.zip.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise ValueError("it is compressed")
        if sum(m.file_size for m in members) > len(data):
            raise ValueError("its members overlap")
        for member in members:
            with file.zip.open(member) as opened:
                if _stated_size(opened) != member.file_size:
                    raise ValueError(f"{member.filename} is not as large as it says")
        return {name: file[name] for name in file}


def _stated_size(opened: IO[bytes]) -> int:
    """Return the bytes that a member of a file is to have by its own header."""
    major, _ = np.lib.format.read_magic(opened)
    read_header = (
        np.lib.format.read_array_header_1_0
        if major == 1
        else np.lib.format.read_array_header_2_0
    )
    try:
        shape, _, dtype = read_header(opened)
    except MemoryError:  # so Python's parser calls what is nested too deeply
        raise ValueError("the header of an array cannot be read") from None
    return opened.tell() + math.prod(shape) * dtype.itemsize


def is_plain(value: Any) -> bool:
    """Return whether an archive can hold a value."""
    try:
        _encode(value, [])
    except TypeError:
        return False
    return True


def _encode(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """Turn a value into JSON; other types become a dict whose key names the type.

    Only exact types, no subclasses: what is read back must equal what was written.
    """
    if isinstance(value, np.ndarray | np.generic) and value.dtype.hasobject:
        items = [_encode(item, arrays) for item in np.ravel(value).tolist()]
        return {"objects": items, "shape": value.shape}
    # A view of a file is as good as an array in memory.
    if type(value) in (np.ndarray, np.memmap) or isinstance(value, np.generic):
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        arrays.append(np.asarray(value))
        return {kind: f"array_{len(arrays) - 1}"}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) is list:
        return [_encode(item, arrays) for item in value]
    if type(value) is tuple:
        return {"tuple": [_encode(item, arrays) for item in value]}
    if type(value) is dict:
        pairs = [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]
        return {"dict": pairs}
    raise TypeError(f"a file without pickle cannot hold {value!r}")


def _decode(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    kind = next(iter(value))
    inner = value[kind]
    match kind:
        case "array":
            return arrays.pop(inner)  # which only one place refers to
        case "scalar":
            return arrays.pop(inner)[()]
        case "objects":
            array = np.empty(len(inner), dtype=object)
            array[:] = [_decode(item, arrays) for item in inner]
            return array.reshape(value["shape"])
        case "float":
            return float(inner)
        case "tuple":
            return tuple(_decode(inner, arrays))
        case "dict":
            return {_decode(k, arrays): _decode(v, arrays) for k, v in inner}
        case _:
            raise ValueError(f"it holds something of the unknown kind {kind!r}")
