"""kvserver.systemd: what reaches a listener on NOTIFY_SOCKET, and that nothing is ever raised."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kvserver import systemd


def listen(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind(address)
    return sock


def test_path_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with listen(path) as sock:
        assert systemd.notify(systemd.READY, systemd.status("Ready to\naccept connections"))
        assert sock.recv(4096) == b"READY=1\nSTATUS=Ready to accept connections"


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"kvserver-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    with listen("\0" + name) as sock:
        assert systemd.notify(systemd.STOPPING)
        assert sock.recv(4096) == b"STOPPING=1"


def test_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify(systemd.READY)


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1", "/nobody/listens", "@x" * 100])
def test_never_raises(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not systemd.notify(systemd.READY)


def test_full_socket_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with listen(path):
        assert not all(systemd.notify(systemd.READY) for _ in range(100_000))
