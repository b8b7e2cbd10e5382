"""docs/commands.md and the registry say the same."""

from __future__ import annotations

import pytest

from kvserver import __version__
from kvserver.registry import COMMANDS
from tools import commands_md
from tools.commands_md import (
    DIFFERENCES,
    DOCUMENT,
    GROUPS,
    MISSING,
    OWN,
    Command,
    render,
    versions,
)

REDIS = commands_md.redis_commands()


def test_the_document_is_what_the_registry_gives() -> None:
    text = DOCUMENT.read_text()
    assert render(text) == text, "run: python -m tools.commands_md"


def test_every_command_is_one_of_redis_in_the_same_group_or_our_own() -> None:
    groups = {command.name: command.group for command in REDIS}
    assert groups.keys().isdisjoint(OWN)
    for top in COMMANDS.values():
        for spec in (top, *top.subcommands.values()):
            if spec.name not in OWN:
                assert groups.get(spec.name) == spec.group, spec.name


def test_the_list_of_redis_is_in_order_and_of_known_groups() -> None:
    assert [command.name for command in REDIS] == sorted({command.name for command in REDIS})
    assert {command.group for command in REDIS} == set(GROUPS)


def test_differences_are_of_commands_that_are_there() -> None:
    assert DIFFERENCES.keys() <= commands_md.our_commands()


def test_what_is_missing_has_a_reason() -> None:
    missing = {command.name for command in REDIS} - commands_md.our_commands()
    parents = {name.partition("|")[0] for name in missing}
    assert MISSING.keys() <= missing | parents
    assert all(name in MISSING or name.partition("|")[0] in MISSING for name in missing)


def test_versions_stay_and_new_commands_get_the_version_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = "| `CONFIG GET` | 2.0.0 | 0.0.1 | text |\n| `GET` | 1.0.0 | — |  |\n"
    assert versions(old) == {"config|get": "0.0.1"}
    assert versions(render(old)) == {
        name: "0.0.1" if name == "config|get" else __version__
        for name in commands_md.our_commands()
    }
    monkeypatch.setattr(commands_md, "redis_commands", lambda: [Command("sync", "set", "1.0.0")])
    assert "| `SYNC` | 1.0.0 | — | Replicas send PSYNC" in render("")
