"""Archives: what they hold comes back as it was, and nothing else is believed."""

import errno
import hashlib
import io
import json
import os
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as npst

from sktarget import _archive, _files


def _objects(items: list[Any]) -> Any:
    made = np.empty(len(items), dtype=object)
    made[:] = items
    return made


ARRAYS = npst.arrays(
    npst.boolean_dtypes()
    | npst.integer_dtypes()
    | npst.floating_dtypes()
    | npst.unicode_string_dtypes(max_len=4),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
SCALARS = st.builds(np.float32, st.floats(width=32)) | st.builds(np.str_, st.text())
NESTED = st.recursive(
    PLAIN | ARRAYS | SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=3)
        | st.lists(PLAIN, max_size=3).map(_objects)
    ),
    max_leaves=6,
)


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        assert_same(list(a.values()), list(b.values()))
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, np.ndarray | np.generic) and a.dtype.hasobject:
        assert a.shape == b.shape
        assert_same(a.ravel().tolist(), b.ravel().tolist())
    elif isinstance(a, np.ndarray | np.generic):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b or (a != a and b != b)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.text(), NESTED, max_size=3))
def test_round_trip(tmp_path: Path, content: dict[str, Any]) -> None:
    _archive.write(tmp_path / "file", "test", content)
    assert_same(_archive.read(tmp_path / "file", "test"), content)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("items", [[[1, 2], [3, 4]], [(1,), (2,)], [[], []]])
def test_objects_that_are_sequences(items: list[Any], tmp_path: Path) -> None:
    given = np.empty(2, dtype=object)
    for i, item in enumerate(items):
        given[i] = item
    _archive.write(tmp_path / "file", "test", {"a": given})
    read = _archive.read(tmp_path / "file", "test")["a"]
    assert (read.shape, read.tolist()) == ((2,), items)


@pytest.mark.parametrize("value", [object(), len, {1, 2}, Path("x"), 1j, b"bytes"])
def test_objects_are_refused(value: Any, tmp_path: Path) -> None:
    for content in ({"a": value}, {"a": [(value,)]}, {"a": _objects([value])}):
        assert not _archive.is_plain(content)
        with pytest.raises(TypeError, match="cannot hold"):
            _archive.write(tmp_path / "file", "test", content)
    assert list(tmp_path.iterdir()) == []


def test_file_is_an_ordinary_npz_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    _archive.write(path, "test", {"a": np.arange(3), "b": _objects(["x", 1])})
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == ["array_0", "header"]
        np.testing.assert_array_equal(file["array_0"], np.arange(3))
        assert b'"kind": "test"' in bytes(file["header"])


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"x", b"PK" + bytes(100), bytes(1000)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="file' is damaged, or not a file"):
            _archive.read(path, "test")
    np.savez(path.with_suffix(".npz"), a=np.arange(3))
    with pytest.raises(ValueError, match="is damaged, or not a file"):
        _archive.read(path.with_suffix(".npz"), "test")
    _archive.write(path, "other", {})
    with pytest.raises(ValueError, match="does not hold a sktarget test but 'other'"):
        _archive.read(path, "test")
    with pytest.raises(FileNotFoundError):
        _archive.read(tmp_path / "absent", "test")


def forge(
    path: Path, header: Any, compression: int = zipfile.ZIP_STORED, **arrays: Any
) -> None:
    """Write a file with a checksum that is right, whatever is in it."""
    members = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.comment = bytes(64)
        for name, array in members.items():
            with file.open(f"{name}.npy", "w") as member:
                if isinstance(array, bytes):
                    member.write(array)
                else:
                    np.lib.format.write_array(member, np.asarray(array))
    body = buffer.getvalue()[:-64]
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def header_of(content: Any) -> dict[str, Any]:
    return {"magic": "sktarget", "kind": "test", "format": 1, "content": content}


def nested(depth: int) -> Any:
    made: Any = 0
    for _ in range(depth):
        made = {"tuple": [made]}
    return made


@pytest.mark.parametrize(
    "header",
    [
        3,
        [],
        header_of({"dict": []}) | {"format": "1"},
        {"magic": "sktarget", "kind": "test", "format": 1},
        {"magic": "sktarget", "kind": "test", "content": {"dict": []}},
        header_of([1]),
        header_of({}),
        header_of({"array": "array_0"}),
        *(
            header_of({"dict": [["a", value]]})
            for value in (
                {},
                {"array": "absent"},
                {"array": 3},
                {"array": []},
                {"scalar": None},
                {"float": "much"},
                {"float": []},
                {"tuple": 3},
                {"objects": 3, "shape": [1]},
                {"objects": [1, 2]},
                {"objects": [1, 2], "shape": [3]},
                {"dict": 3},
                {"dict": [[1]]},
                {"dict": [[[], 1]]},
                {"unknown": [3]},
                {"unknown": [[1, 2]]},
                # Which would take a file's memory many times over.
                [{"array": "array_0"}, {"array": "array_0"}],
                nested(400),
            )
        ),
    ],
    ids=lambda header: repr(header)[-50:],
)
def test_forged_headers_are_refused(header: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    forge(path, header, array_0=np.arange(3))
    match = r"file' (is damaged, or no|does not hold a sktarget test)"
    with pytest.raises(ValueError, match=match):
        _archive.read(path, "test")


@pytest.mark.parametrize("shape", ["(10,)", "(1000000000000000,)", "(2, 2)"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_members_must_be_as_large_as_they_say(
    shape: str, version: tuple[int, int], tmp_path: Path
) -> None:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    length = len(text).to_bytes(2 * version[0], "little")
    member = np.lib.format.magic(*version) + length + text + bytes(3 * 8)
    path = tmp_path / "file"
    forge(path, header_of({"dict": [["a", {"array": "array_0"}]]}), array_0=member)
    with pytest.raises(ValueError, match="is not as large as it says"):
        _archive.read(path, "test")


@pytest.mark.parametrize(
    "text",
    [b"{'descr': '<f8', 'shape': (3,\n", b"  {'descr'\n {\n", b"-" * 9000 + b"1\n"],
)
def test_members_need_a_header_that_can_be_read(text: bytes, tmp_path: Path) -> None:
    member = np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text
    path = tmp_path / "file"
    forge(path, header_of({"dict": [["a", {"array": "array_0"}]]}), array_0=member)
    with pytest.raises(ValueError, match="is damaged, or no file"):
        _archive.read(path, "test")


def test_compressed_files_are_refused(tmp_path: Path) -> None:
    path, large = tmp_path / "file", np.zeros(10**6)
    header = header_of({"dict": [["a", {"array": "array_0"}]]})
    forge(path, header, array_0=large)
    assert_same(_archive.read(path, "test"), {"a": large})
    forge(path, header, zipfile.ZIP_DEFLATED, array_0=large)
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match=r"file' is damaged, or no .*is compressed"):
        _archive.read(path, "test")


def test_what_is_lacking_is_named(tmp_path: Path) -> None:
    _archive.write(tmp_path / "file", "test", {"a": 1})
    assert _archive.read(tmp_path / "file", "test", ["a"]) == {"a": 1}
    with pytest.raises(ValueError, match=r"is damaged, or no file.*KeyError: 'b'"):
        _archive.read(tmp_path / "file", "test", ["a", "b"])


def test_views_of_files_come_back_as_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.arange(6.0))
    view = np.load(tmp_path / "array.npy", mmap_mode="r")
    _archive.write(tmp_path / "file", "test", {"a": view[::2]})
    found = _archive.read(tmp_path / "file", "test")
    assert_same(found, {"a": np.arange(0.0, 6.0, 2)})


def test_later_formats_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_archive, "FORMAT_VERSION", 2)
        _archive.write(tmp_path / "file", "test", {})
    with pytest.raises(ValueError, match=r"has format 2.*up to 1: use a later one"):
        _archive.read(tmp_path / "file", "test")


def test_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    _archive.write(path, "test", {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _archive.write(path, "test", {"a": 2})
    assert _archive.read(path, "test") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_many_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write_and_read(number: int) -> None:
        for _ in range(20):
            _archive.write(path, "test", {"a": np.full(20_000, number)})
            found = _archive.read(path, "test")["a"]
            assert len(found) == 20_000
            assert (found == found[0]).all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_read, range(8)))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_text("notes")
    (tmp_path / "notes").write_text("more notes")
    (tmp_path / "other.part").symlink_to(tmp_path / "notes")
    for name in ("file", "other"):
        _archive.write(tmp_path / name, "test", {})
    assert (tmp_path / "file.part").read_text() == "notes"
    assert (tmp_path / "notes").read_text() == "more notes"
    assert (tmp_path / "other.part").is_symlink()


def test_name_that_is_taken_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 2 * n)
    taken = tmp_path / f"file.{'0' * 12}.part"
    taken.symlink_to(tmp_path / "absent")
    with pytest.raises(FileExistsError):
        _archive.write(tmp_path / "file", "test", {})
    assert [p.name for p in tmp_path.iterdir()] == [taken.name]


@pytest.mark.skipif(os.name != "posix", reason="links take rights on Windows")
def test_links_stay_links(tmp_path: Path) -> None:
    link, path = tmp_path / "link", tmp_path / "file"
    link.symlink_to(path)
    for number in (1, 2):
        _archive.write(link, "test", {"number": number})
        assert link.is_symlink()
        assert _archive.read(path, "test", ["number"]) == {"number": number}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.name != "posix", reason="links take rights on Windows")
def test_links_to_themselves_are_no_files(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(OSError, match="link"):
        _archive.read(link, "test", [])
    _files.remove_leftovers(link)
    _archive.write(link, "test", {})


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such folder: .*nowhere'"):
        _archive.write(tmp_path / "nowhere" / "file", "test", {})


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        for _ in range(2):
            _archive.write(path, "test", {})
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    left = "file.0123456789ab.part"
    others = ["file", "file.part", "file.notes.part", f"my {left}", f"{left}.npz"]
    for name in (left, *others):
        (tmp_path / name).touch()
    _files.remove_leftovers(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(others)
    _files.remove_leftovers(tmp_path / "absent" / "file")


@pytest.mark.skipif(os.name != "posix", reason="pipes are those of POSIX")
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="Not a regular file"):
            _archive.write(path, "test", {})
        with pytest.raises(OSError, match="Not a regular file"):
            _files.try_to_write(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_file_that_is_replaced_hands_its_permissions_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, modes = tmp_path / "file", []

    def note(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

    _archive.write(path, "test", {})
    path.chmod(0o620)
    monkeypatch.setattr(os, "fsync", note)
    _archive.write(path, "test", {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o620
    assert modes == [0o620]  # nor can others read it meanwhile
