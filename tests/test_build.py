"""Building the package: what setup.py compiles, what it does when it can't, and that compiled
modules hold to what mypyc asks of them (docs/development.md)."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest
import redis
from conftest import FreshServer
from harness import KVSERVER, Program

import kvserver

ROOT = Path(__file__).parent.parent
COMPILER = (sysconfig.get_config_var("CC") or "cc").split()[0]

#: Builds two of the modules as setup.py builds all of them.
BUILD = """
import importlib.util, sys
from setuptools import setup
spec = importlib.util.spec_from_file_location("builder", sys.argv.pop(1))
builder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(builder)
builder.HOT = ["kvserver/codec.py", "kvserver/state/histogram.py"]
setup(
    name="kvserver",
    packages=["kvserver", "kvserver.state"],
    ext_modules=builder.extensions(),
    cmdclass={"build_ext": builder.AllOrNothing},
)
"""
#: Compiles, but not the library that the modules share.
HALF_A_COMPILER = f"""#!/bin/sh
case "$*" in *__native_kvserver.c*) exit 1 ;; esac
exec {COMPILER} "$@"
"""


def load_setup() -> ModuleType:
    """setup.py as a module."""
    spec = importlib.util.spec_from_file_location("builder", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder = load_setup()
HOT = [ROOT / path for path in builder.HOT]


# -- what is compiled ----------------------------------------------------------------------------


def test_the_tests_run_on_what_they_were_asked_to(client: redis.Redis) -> None:
    if os.environ.get("KVSERVER_TEST_COMPILED") == "1":
        assert kvserver.COMPILED
    build = client.info("server")["kvserver_build"]
    assert build == ("compiled" if kvserver.COMPILED else "python")


@pytest.mark.parametrize("extension", [*EXTENSION_SUFFIXES, None])
def test_compiled_tells_what_would_be_imported(tmp_path: Path, extension: str | None) -> None:
    package = tmp_path / "kvserver"
    package.mkdir()
    shutil.copy(ROOT / "kvserver" / "__init__.py", package)
    (package / "codec.py").touch()
    if extension is not None:
        (package / f"codec{extension}").touch()
    assert is_compiled(tmp_path) == (extension is not None)


def is_compiled(directory: Path) -> bool:
    """`kvserver.COMPILED` of the package in this directory."""
    program = "import kvserver; print(kvserver.COMPILED, kvserver.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    command = [sys.executable, "-P", "-c", program]
    words = subprocess.check_output(command, env=environment, text=True).split()
    assert Path(words[1]).is_relative_to(directory)
    return words[0] == "True"


# -- building ------------------------------------------------------------------------------------


def build(tmp_path: Path, **environment: str) -> Path:
    """Build the two modules in a copy of the source: the directory with the result."""
    for name in ("__init__", "codec", "state/__init__", "state/histogram"):
        target = tmp_path / "kvserver" / f"{name}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "kvserver" / f"{name}.py", target)
    subprocess.run(
        [sys.executable, "-c", BUILD, str(ROOT / "setup.py"), "build", "--build-lib", "lib"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=100,
    )
    assert not list((tmp_path / "kvserver").rglob("*.so")), "written beside the source"
    return tmp_path / "lib"


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="there is no C compiler")
def test_modules_are_compiled(tmp_path: Path) -> None:
    assert is_compiled(build(tmp_path))


@pytest.mark.parametrize("compiler", ["/bin/false", "/nonexistent", "half"])
def test_without_a_compiler_that_works_the_build_succeeds(tmp_path: Path, compiler: str) -> None:
    if compiler == "half":
        script = tmp_path / "cc"
        script.write_text(HALF_A_COMPILER)
        script.chmod(0o755)
        compiler = str(script)
    library = build(tmp_path, CC=compiler)
    assert not is_compiled(library)
    assert not list(library.rglob("*.so"))
    assert (library / "kvserver" / "state" / "histogram.py").exists()


def test_nothing_is_compiled_that_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["setup.py", "editable_wheel"])
    assert builder.extensions() == []
    monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
    monkeypatch.setenv("KVSERVER_PURE", "1")
    assert builder.extensions() == []
    monkeypatch.delenv("KVSERVER_PURE")
    monkeypatch.setitem(sys.modules, "mypyc.build", None)
    assert builder.extensions() == []
    assert capsys.readouterr().err == "kvserver is not compiled: mypy is not installed\n"


# -- wheels --------------------------------------------------------------------------------------


def clean_environment() -> dict[str, str]:
    """What pip is to see: not the tree that is tested, nor how it is."""
    ours = ("KVSERVER_PURE", "PYTHONPATH", "PYTHONSAFEPATH")
    return {name: value for name, value in os.environ.items() if name not in ours}


def wheel(tmp_path: Path, compiler: str) -> Path:
    """A wheel of the whole package, made by pip from a copy of the tree."""
    source = tmp_path / "source"
    leave = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "kvserver", source / "kvserver", ignore=leave)
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "-w", str(tmp_path), str(source)],
        cwd=tmp_path,
        env={**clean_environment(), "CC": compiler},
        check=True,
        capture_output=True,
    )
    (made,) = tmp_path.glob("kvserver-*.whl")
    return made


def install(made: Path, directory: Path) -> Path:
    """A new virtual environment with the wheel, and with what it needs from that of the tests: the
    directory of its packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python"), "install"]
    install_it = [*pip, "-q", "--no-deps", "--no-index", str(made)]
    subprocess.run(install_it, cwd=directory, env=clean_environment(), check=True)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("platlib"))
    return packages


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("compiler", "expected"),
    [
        pytest.param("/bin/false", "python", id="no compiler"),
        pytest.param(COMPILER, "compiled", id="compiler", marks=pytest.mark.long),
    ],
)
def test_a_wheel_serves(
    tmp_path: Path, fresh_server: FreshServer, compiler: str, expected: str
) -> None:
    packages = install(wheel(tmp_path, compiler), tmp_path / "venv")
    assert extensions_in(packages) == (set(builder.HOT) if expected == "compiled" else set())
    program = str(tmp_path / "venv" / "bin" / "kvserver")
    version = subprocess.check_output([program, "--version"], text=True, env=path_only())
    assert version == f"kvserver v={kvserver.__version__}\n"
    program_of = Program("kvserver", (program,), KVSERVER.directives)
    client = fresh_server(program=program_of, env={"PYTHONPATH": ""}).client()
    assert client.info("server")["kvserver_build"] == expected
    assert client.set("key", "value") and client.get("key") == b"value"


@pytest.mark.skipif(
    os.environ.get("KVSERVER_TEST_COMPILED") != "1", reason="this isn't the compiled package"
)
def test_all_or_nothing_is_compiled() -> None:
    packages = Path(kvserver.__file__).parent.parent
    assert extensions_in(packages) == set(builder.HOT)


def extensions_in(packages: Path) -> set[str]:
    """The modules in a directory of packages that are compiled."""
    libraries = {*packages.glob("kvserver/**/*.so"), *packages.glob("kvserver__mypyc*.so")}
    modules = {path for path in libraries if path.parent != packages}
    assert bool(modules) == (libraries != modules), "half is compiled"
    return {
        str(path.relative_to(packages).with_name(f"{path.name.partition('.')[0]}.py"))
        for path in modules
    }


def path_only() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


# -- what mypyc asks of the modules --------------------------------------------------------------

#: What takes a generator expression as its only argument and reads it to the end at once.
CONSUMERS = {"all", "any", "deque", "dict", "list", "max", "min", "set", "sorted", "sum", "tuple"}
CONSUMERS |= {"accumulate", "join", "update"}


def function_name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("path", HOT, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_generator_expression_is_lazy(path: Path) -> None:
    """mypyc makes a list of it: one over millions of keys would stop the server."""
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    consumed = [
        id(call.args[0]) for call in calls if call.args and function_name(call) in CONSUMERS
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.GeneratorExp):
            assert id(node) in consumed, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", HOT, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_handler_is_a_generator(path: Path) -> None:
    """Dispatch knows a long walk by its type, which a compiled generator doesn't have."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            yields = [n for n in ast.walk(node) if isinstance(n, ast.Yield | ast.YieldFrom)]
            assert not yields, f"{path.name}:{node.lineno}"
