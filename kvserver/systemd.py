"""Readiness for systemd: the sd_notify protocol over the socket in NOTIFY_SOCKET.

It knows nothing of the server. A datagram carries newline-separated `KEY=value` fields; a first
byte `@` in the address stands for Linux's abstract namespace (man sd_notify). Notifying is a
courtesy: without the variable, or when the socket fails, nothing happens and nothing is raised.
"""

from __future__ import annotations

import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"


def status(text: str) -> str:
    """The field that `systemctl status` shows; one line."""
    return "STATUS=" + " ".join(text.split())


def notify(*fields: str) -> bool:
    """Send `fields` to systemd in one datagram; False if nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            # A full socket buffer must not stop the server.
            sock.setblocking(False)
            sock.sendto("\n".join(fields).encode(), address)
    except (OSError, ValueError):
        return False
    return True
