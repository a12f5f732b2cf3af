"""What holds for the repository as a whole: tools, layers, imports, docstrings."""

import ast
import dataclasses
import enum
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numpydoc.validate import validate

import sktarget

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sktarget"
README = ROOT / "README.md"

# Each room imports from those with a smaller number, and from itself.
LAYERS = {
    "sktarget._version": 0,
    "sktarget._files": 0,
    "sktarget._archive": 1,
    "sktarget._blank": 0,
    "sktarget._layered": 0,
    "sktarget._packing": 0,
    "sktarget._processor": 0,
    "sktarget._slices": 0,
    "sktarget._tensors": 0,
    "sktarget._tanh": 1,
    "sktarget.linalg": 1,
    "sktarget.datasets": 0,
    "sktarget.plotting": 0,
    "sktarget.preprocessing": 0,
    "sktarget._linear": 2,
    "sktarget.nn": 3,
    "sktarget.architectures": 3,
    "sktarget.training": 4,
    "sktarget.estimators": 5,
    "sktarget.propagation": 6,
    "sktarget.persistence": 6,
    "sktarget.export": 7,
    "sktarget": 8,
}

DOCSTRING_ERRORS = {
    "GL06",  # unknown section
    "GL07",  # sections in the wrong order
    "GL08",  # no docstring
    "PR01",  # a parameter is not documented
    "PR02",  # an unknown parameter is documented
    "PR03",  # parameters in the wrong order
    "PR04",  # a parameter has no type
    "PR07",  # a parameter has no description
    "PR10",  # no space before the colon of a parameter
    "RT01",  # what is returned is not documented
    "RT03",  # what is returned has no description
    "SS01",  # no summary
    "SS02",  # the summary does not begin with a capital letter
    "SS03",  # the summary does not end with a full stop
    "SS06",  # the summary is longer than one line
    "YD01",  # what is yielded is not documented
}


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True
    )


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """Return the entry of the table that a module belongs to."""
    return module if module == "sktarget" else ".".join(module.split(".")[:2])


def imports(module: str) -> Iterator[str]:
    """Yield every module that one of the package imports, at its top or within."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name(
                "." * node.level + (node.module or ""), package
            )
            # `from package import name`: a submodule, or something within package.
            names = (f"{origin}.{alias.name}" for alias in node.names)
            yield from (name if name in SOURCES else origin for name in names)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache"),
        ("ruff", "format", "--check", "--diff", "--no-cache"),
        ("mypy",),
    ],
    ids=" ".join,
)
def test_tools_find_nothing(command: tuple[str, ...]) -> None:
    result = run_python("-m", *command)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str) -> None:
    here = room(module)
    assert here in LAYERS, f"{here} has no place in LAYERS"
    for imported in imports(module):
        there = room(imported)
        if there in LAYERS:
            assert there == here or LAYERS[there] < LAYERS[here], f"imports {imported}"
            is_private = any(part.startswith("_") for part in imported.split(".")[2:])
            assert there == here or not is_private, f"imports {imported}"


def test_every_room_is_on_the_page() -> None:
    page = (ROOT / "docs" / "development.md").read_text("utf-8")
    rooms = LAYERS.keys() - {"sktarget", "sktarget._version"}
    assert not {room for room in rooms if not re.search(rf"{room}\b", page)}


def test_import_check_sees_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "import numpy, sktarget.linalg\n"
        "from sktarget import datasets, TargetSpaceClassifier\n"
        "from . import _base\n"
        "def f():\n    from ..nn._linear import TargetLinear\n"
    )
    monkeypatch.setitem(SOURCES, "sktarget.estimators.module", source)
    monkeypatch.setitem(SOURCES, "sktarget.estimators._base", source)
    assert list(imports("sktarget.estimators.module")) == [
        "numpy",
        "sktarget.linalg",
        "sktarget.datasets",
        "sktarget",
        "sktarget.estimators._base",
        "sktarget.nn._linear",
    ]


def test_imported_packages_are_dependencies() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    # What an extra brings is imported by one module, where it is needed.
    extras = project["optional-dependencies"]
    dependencies = project["dependencies"] + extras["onnx"] + extras["plot"]
    declared = {re.match(r"[\w-]+", requirement)[0] for requirement in dependencies}
    imported = {name.split(".")[0] for module in SOURCES for name in imports(module)}
    third_party = imported - sys.stdlib_module_names - {"sktarget"}
    assert {"scikit-learn" if n == "sklearn" else n for n in third_party} <= declared


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("sktarget", {"torch", "sklearn", "skorch"}),
        ("sktarget.linalg", {"sklearn", "skorch"}),
        ("sktarget.nn", {"sklearn", "skorch"}),
    ],
)
def test_import_loads_no_more_than_it_needs(module: str, absent: set[str]) -> None:
    result = run_python("-c", f"import sys, {module}; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    assert absent.isdisjoint(result.stdout.split())


OFFLINE = """
import sys, warnings

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise RuntimeError(f"{event} {arguments}")

sys.addaudithook(refuse)
warnings.simplefilter("ignore")
import importlib, pkgutil
import numpy as np
import sktarget, sktarget.propagation

for info in pkgutil.walk_packages(sktarget.__path__, "sktarget."):
    importlib.import_module(info.name)
kinds = [getattr(sktarget, name) for name in sktarget.__all__ if name[0] == "T"]
kinds += [getattr(sktarget.propagation, n) for n in sktarget.propagation.__all__]
X = np.random.RandomState(0).normal(size=(20, 3))
for kind in kinds:
    kind(max_iter=1).fit(X, X[:, 0] > 0).predict(X)
print(len(kinds))
"""


def test_nothing_asks_the_network() -> None:
    result = run_python("-c", OFFLINE)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["10"]


def test_oldest_versions_are_those_declared() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    pins = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    oldest = dict(re.findall(r"^([\w-]+)==(.+)$", pins, flags=re.MULTILINE))
    requirements = project["dependencies"] + project["optional-dependencies"]["test"]
    for requirement in requirements:
        name, bound = requirement.split(">=")
        pinned, declared = (
            tuple(int(part) for part in version.split("."))
            for version in (oldest[name], bound)
        )
        assert pinned >= declared, requirement
        # But for torch, of which there are no wheels as old for the CPU alone.
        if requirement in project["dependencies"] and name != "torch":
            assert pinned[: len(declared)] == declared, requirement


def test_top_level_names_load_on_first_use() -> None:
    from sktarget import estimators

    assert sktarget.TargetSpaceClassifier is estimators.TargetSpaceClassifier
    assert set(sktarget.__all__) <= set(dir(sktarget))
    with pytest.raises(AttributeError, match="has no attribute 'Targetspace'"):
        _ = sktarget.Targetspace


def public_modules() -> list[ModuleType]:
    names = (info.name for info in pkgutil.walk_packages([str(PACKAGE)], "sktarget."))
    public = (name for name in names if "._" not in name)
    return [sktarget, *map(importlib.import_module, public)]


def is_ours(value: Any) -> bool:
    """Return whether the package defines this, neither inherited nor generated."""
    if isinstance(value, property):
        value = value.fget
    # staticmethod and classmethod; what available_if decorates.
    value = getattr(value, "__func__", getattr(value, "fn", value))
    module = getattr(inspect.unwrap(value), "__module__", None) or ""
    return module.startswith("sktarget")


def public_names() -> Iterator[tuple[str, set[str]]]:
    """Yield the path of all that is public, and the rules it is exempt from."""
    for module in public_modules():
        assert hasattr(module, "__all__"), f"{module.__name__} has no __all__"
        for name in module.__all__:
            obj = getattr(module, name)
            path = f"{module.__name__}.{name}"
            if inspect.isroutine(obj):
                yield path, set()
            elif inspect.isclass(obj) and issubclass(obj, enum.Enum):
                yield path, {"PR01"}  # The members say what they are.
            elif inspect.isclass(obj):
                # The fields of a dataclass or named tuple are documented as attributes.
                has_fields = dataclasses.is_dataclass(obj) or hasattr(obj, "_fields")
                yield path, {"PR01"} if has_fields else set()
                yield from public_members(path, obj)


def public_members(path: str, owner: type) -> Iterator[tuple[str, set[str]]]:
    foreign = {
        name for base in owner.__mro__ if not is_ours(base) for name in vars(base)
    }
    for name, value in inspect.getmembers_static(owner):
        if not name.startswith("_") and is_ours(value):
            # What a hook of torch or scikit-learn takes and returns is known there.
            yield f"{path}.{name}", {"PR01", "RT01"} if name in foreign else set()


@pytest.mark.parametrize(
    ("path", "exempt"), [pytest.param(*rule, id=rule[0]) for rule in public_names()]
)
def test_docstring(path: str, exempt: set[str]) -> None:
    result = validate(path)
    if "\n" not in result["docstring"]:
        exempt = exempt | {"RT01"}  # The summary says what is returned.
    wanted = DOCSTRING_ERRORS - exempt
    assert not [error for error in result["errors"] if error[0] in wanted]


def test_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_version_has_one_source() -> None:
    assert importlib.metadata.version("sktarget") == sktarget.__version__
    elsewhere = [ROOT / "pyproject.toml", ROOT / "docs" / "conf.py", README]
    elsewhere += [path for name, path in SOURCES.items() if name != "sktarget._version"]
    for path in elsewhere:
        assert sktarget.__version__ not in path.read_text(encoding="utf-8"), path


def test_readme_has_two_commands() -> None:
    blocks = re.findall(
        r"^```(?:ba|z)?(?:sh|shell|console)\n(.*?)^```$",
        README.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    example, tests = (block.strip() for block in blocks)
    assert "examples/plot_two_spirals.py" in example
    assert "\n" not in example + tests
    assert tests in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
