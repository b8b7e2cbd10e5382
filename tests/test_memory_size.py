"""Sizes that are a share of the memory, and how much memory there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from harness import Server

from kvserver.kinds import MemorySize
from kvserver.state import process

SIZE = MemorySize()


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("25%", -25, "25%"),
        ("100%", -100, "100%"),
        ("0%", 0, "0"),
        ("1mb", 1 << 20, "1048576"),
        ("0", 0, "0"),
    ],
)
def test_sizes_and_shares(text: str, value: int, shown: str) -> None:
    assert SIZE.read(text) == value
    assert SIZE.show(value) == shown
    assert SIZE.read(*SIZE.words(value)) == value


@pytest.mark.parametrize("text", ["%", "-1%", "101%", "1.5%", "5 %", "many%", "%5", "5%%", ""])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        SIZE.read(text)


V1, V2 = "3:cpu:/x\n4:memory,hugetlb:/x\n0::/\n", "0::/a/b\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {}, None),
        (V2, {"a/b/memory.max": "max"}, None),
        (V2, {"a/b/memory.max": "1048576"}, 1 << 20),
        (V2, {"a/b/memory.max": "max", "a/memory.max": "4096"}, 4096),
        (V2, {"a/b/memory.max": "8192", "a/memory.max": "4096"}, 4096),
        (V2, {"memory.max": "4096"}, 4096),  # in a container
        (V1, {"memory/x/memory.limit_in_bytes": "4096"}, 4096),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        (V1, {"cpu/x/memory.limit_in_bytes": "4096"}, None),
        ("", {"memory.max": "4096"}, None),
    ],
)
def test_memory_is_what_the_control_groups_leave(
    tmp_path: Path, own: str, files: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "own").write_text(own)
    for name, limit in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    found = process.memory_bytes(str(tmp_path / "own"), str(tmp_path / "groups"))
    assert found == (process.system_bytes() if expected is None else expected)


def test_a_share_is_that_of_the_memory() -> None:
    assert process.share_of_memory(1000) == 1000
    assert process.share_of_memory(-10) == process.memory_bytes() // 10


def test_a_running_server(server: Server, client: redis.Redis) -> None:
    assert client.config_get("row-cache-size") == {"row-cache-size": "25%"}
    half = process.memory_bytes() // 2
    client.config_set("row-cache-size", "50%")
    assert client.info("memory")["row_cache_max_bytes"] == half
    client.config_set("row-cache-size", "3mb")
    assert client.info("memory")["row_cache_max_bytes"] == 3 << 20
    with pytest.raises(redis.ResponseError, match="memory or percent value"):
        client.config_set("row-cache-size", "300%")
    client.config_set("row-cache-size", "25%")
