"""What the tests of ONCE share."""

from __future__ import annotations

import uuid

import pytest

from kvserver.codec import prefix_end
from kvserver.storage.commitlog import CommitLog


@pytest.fixture
def w() -> str:
    """The id of a writer that a server, which tests share, hasn't seen yet."""
    return uuid.uuid4().hex


def out_of_order(expected: int) -> bytes:
    return b"-OUTOFORDER expected %d\r\n" % expected


def kept(log: CommitLog, prefix: bytes) -> dict[bytes, bytes]:
    return dict(log.meta.scan(prefix, prefix_end(prefix)))
