"""compose.yaml: valid, and what it mounts is there and loads."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import free_port

from kvserver import config_file

ROOT = Path(__file__).parent.parent
PASSWORD = "a-password"
PROFILES = {
    "standalone": {"standalone"},
    "replicated": {"primary", "replica-1", "replica-2"},
    "sentinel": {"primary", "replica-1", "replica-2", "sentinel-1", "sentinel-2", "sentinel-3"},
}


class Yaml:
    """The part of YAML that compose.yaml is written in. Anything else is an error."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.split("\n") if line.strip() and line.strip()[0] != "#"]
        self._lines = [(len(line) - len(line.lstrip()), line.strip()) for line in lines]
        self._at = 0

    def parse(self) -> Any:
        value = self._block(0)
        assert self._at == len(self._lines), self._lines[self._at]
        return value

    def _block(self, indent: int) -> Any:
        _, line = self._lines[self._at]
        return self._list(indent) if line.startswith("- ") else self._mapping(indent)

    def _mine(self, indent: int) -> Iterator[str]:
        while self._at < len(self._lines) and self._lines[self._at][0] >= indent:
            found, line = self._lines[self._at]
            assert found == indent, f"indented by {found}, not {indent}: {line}"
            self._at += 1
            yield line

    def _list(self, indent: int) -> list[Any]:
        found = []
        for line in self._mine(indent):
            assert line.startswith("- "), line
            found.append(self._value(line[2:], indent))
        return found

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for line in self._mine(indent):
            match = re.fullmatch(r"([\w-]+):(?: (.+))?", line, re.IGNORECASE)
            assert match, line
            assert match[1] not in found, f"{match[1]} is there twice"
            found[match[1]] = self._value(match[2] or "", indent)
        return found

    def _value(self, text: str, indent: int) -> Any:
        nested = self._at < len(self._lines) and self._lines[self._at][0] > indent
        if text == ">-":
            return " ".join(self._mine(self._lines[self._at][0]))
        if not text:
            return self._block(self._lines[self._at][0]) if nested else None
        assert not nested, f"a value and a block: {text}"
        if text[0] in '["':
            return json.loads(text)
        assert text[0] not in "{&*!|>'%@`", text
        return text


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = Yaml((ROOT / "compose.yaml").read_text()).parse()
    return found


def test_profiles(compose: dict[str, Any]) -> None:
    found = {
        profile: {n for n, s in compose["services"].items() if profile in s["profiles"]}
        for profile in PROFILES
    }
    assert found == PROFILES


def test_services(compose: dict[str, Any]) -> None:
    services = compose["services"]
    volumes, ports = [], []
    for service in services.values():
        volumes += [v.split(":")[0] for v in service["volumes"] if not v.startswith(".")]
        ports += service["ports"]
        assert service["environment"] == {
            "KVSERVER_PASSWORD": "${KVSERVER_PASSWORD:?set a password}"
        }
        assert set(service.get("depends_on", [])) <= services.keys()
    assert sorted(volumes) == sorted(compose["volumes"])
    # `standalone` isn't run beside the others.
    assert len(set(ports)) == len(ports) - 1


def mounted(service: dict[str, Any]) -> dict[str, Path]:
    """What is mounted from here, by its place in the container."""
    mounts = [v.split(":") for v in service["volumes"] if v.startswith(".")]
    assert all(options == ["ro"] for _, _, *options in mounts)
    return {target: ROOT / source for source, target, *_ in mounts}


def last_command(service: dict[str, Any]) -> list[str]:
    """The words of the program that the container ends up with."""
    shell, option, script = service["command"]
    assert (shell, option) == ("sh", "-c")
    *before, last = script.split("; ")
    script = last.replace('"$$KVSERVER_PASSWORD"', shlex.quote(PASSWORD))
    words = shlex.split(script)
    assert words[0] == "exec" and "$" not in script
    for copy in before:
        program, flag, source, target = shlex.split(copy)
        assert (program, flag) == ("cp", "-n") and source in mounted(service)
        assert target == words[2]
        words[2] = source
    return words[1:]


def test_configurations_load(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        program, path, *options = last_command(service)
        if program == "kvserver":
            loaded = config_file.load([str(mounted(service)[path]), *options], lambda: "", {})
            assert loaded.get_str("dir") == "/data" and loaded.get_str("requirepass") == PASSWORD
            if name != "standalone":
                assert loaded.get_str("replica-announce-ip") == name


def test_sentinels_start(compose: dict[str, Any], tmp_path: Path) -> None:
    if shutil.which("redis-sentinel") is None:
        pytest.skip("redis-sentinel is not installed")
    service = compose["services"]["sentinel-1"]
    program, path, *options = last_command(service)
    # The names of containers mean nothing here.
    text = mounted(service)[path].read_text().replace("mymaster primary", "mymaster 127.0.0.1")
    file = tmp_path / "sentinel.conf"
    file.write_text(text.replace("dir /data", f"dir {tmp_path}"))
    options[options.index("sentinel-1")] = "127.0.0.1"
    command = [program, str(file), *options, "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            log = []
            for line in process.stdout:
                log.append(line)
                if "+monitor master mymaster" in line:
                    break
            else:
                pytest.fail("".join(log))
        finally:
            process.kill()
    assert f"auth-pass mymaster {PASSWORD}" in file.read_text()
