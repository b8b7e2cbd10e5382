"""The layers of kvserver: imports only go down, and a layer never learns what it must not know.

The table below is the rule; docs/design.md has the reasons. A module belongs to the row with its
longest matching name, and a name stands for everything in that package too. An import counts
wherever it is, inside functions and under TYPE_CHECKING as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import kvserver


@dataclass(frozen=True)
class Layer:
    name: str
    modules: frozenset[str]
    must_not_know: frozenset[str]


def layer(name: str, modules: str, must_not_know: str = "") -> Layer:
    full = ("kvserver." + module for module in modules.split())
    return Layer(name, frozenset(full), frozenset(must_not_know.split()))


NETWORK = "asyncio uvloop socket ssl select selectors socketserver"

# From the bottom to the top.
LAYERS = [
    layer(
        "pure",
        "errors numbers geohash glob quoting args codec history frames resp reply request registry "
        "syntax acl config kinds directives config_file rdb hyperloglog sparkline",
        must_not_know=f"{NETWORK} rocksdict threading subprocess",
    ),
    layer("storage", "storage", must_not_know=NETWORK),
    layer("data", "keyspace database collection types expiry scan digest", must_not_know=NETWORK),
    layer("state", "state scripting", must_not_know=NETWORK),
    layer("commands", "commands", must_not_know=NETWORK),
    layer("replication", "replication", must_not_know=NETWORK),
    layer("edge", "edge admin cli __main__ systemd logs"),
]

# Third-party modules that only one module may import.
SOLE_IMPORTERS = {"rocksdict": "kvserver.storage.engine"}

ROOT = Path(kvserver.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    """`kvserver/storage/engine.py` is kvserver.storage.engine."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def layer_index(module: str) -> int | None:
    """Where `module` is in LAYERS; None if no row covers it."""
    name = module
    while name:
        for index, row in enumerate(LAYERS):
            if name in row.modules:
                return index
        name = name.rpartition(".")[0]
    return None


def imports(tree: ast.AST, module: str, is_package: bool, known: Iterable[str]) -> Iterator[str]:
    """The full names of the modules that `module` imports, relative imports resolved."""
    known = set(known)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                package = package[: len(package) - node.level + is_package]
                base = ".".join([*package, base]) if base else ".".join(package)
            for alias in node.names:
                # `from kvserver import codec` imports a module, `from kvserver.codec import X` not.
                name = f"{base}.{alias.name}"
                yield name if name in known else base


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    tree = ast.parse(path.read_text(), str(path))
    return set(imports(tree, module, path.name == "__init__.py", MODULES))


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


PLACED = [module for module in MODULES if module != "kvserver"]


@pytest.mark.parametrize("module", PLACED)
def test_module_has_a_layer(module: str) -> None:
    assert layer_index(module) is not None, (
        f"{module} is in no layer: add it to LAYERS in {Path(__file__).name}, "
        f"in the lowest row whose modules and `must_not_know` fit what it imports"
    )


@pytest.mark.parametrize("module", PLACED)
def test_imports_go_down(module: str) -> None:
    own = layer_index(module)
    assert own is not None, f"{module} is in no layer"
    for imported in imports_of(module):
        other = layer_index(imported)
        if imported in MODULES and other is not None:
            assert other <= own, (
                f"{module} ({LAYERS[own].name}) imports {imported} ({LAYERS[other].name}), "
                f"which is above it"
            )


@pytest.mark.parametrize("module", PLACED)
def test_layer_knows_only_what_it_may(module: str) -> None:
    own = layer_index(module)
    assert own is not None, f"{module} is in no layer"
    for imported in imports_of(module):
        for forbidden in LAYERS[own].must_not_know:
            assert not is_within(imported, forbidden), (
                f"{module} imports {imported}; the {LAYERS[own].name} layer must not know it"
            )


@pytest.mark.parametrize("module", MODULES)
def test_sole_importers(module: str) -> None:
    for imported in imports_of(module):
        for library, owner in SOLE_IMPORTERS.items():
            assert module == owner or not is_within(imported, library), (
                f"{module} imports {library}; only {owner} may"
            )


def test_the_package_itself_imports_nothing() -> None:
    # Importing any module runs kvserver/__init__.py, so it is below the lowest layer.
    assert not {name for name in imports_of("kvserver") if is_within(name, "kvserver")}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import asyncio.events", {"asyncio.events"}),
        ("import a, b as c", {"a", "b"}),
        ("from kvserver import codec", {"kvserver.codec"}),
        ("from kvserver import __version__", {"kvserver"}),
        ("from kvserver.codec import STAMP", {"kvserver.codec"}),
        ("from . import engine", {"kvserver.storage.engine"}),
        ("from .engine import Engine", {"kvserver.storage.engine"}),
        ("from .. import codec", {"kvserver.codec"}),
        ("from ..codec import STAMP", {"kvserver.codec"}),
        ("def f():\n    import socket", {"socket"}),
        ("if TYPE_CHECKING:\n    from kvserver.codec import X", {"kvserver.codec"}),
        ("x = 'import socket'", set()),
    ],
)
def test_imports_are_found(source: str, expected: set[str]) -> None:
    known = {"kvserver", "kvserver.codec", "kvserver.storage", "kvserver.storage.engine"}
    tree = ast.parse(source)
    assert set(imports(tree, "kvserver.storage.wal", False, known)) == expected


def test_package_relative_import() -> None:
    tree = ast.parse("from .engine import Engine\nfrom ..codec import STAMP")
    found = set(imports(tree, "kvserver.storage", True, []))
    assert found == {"kvserver.storage.engine", "kvserver.codec"}
