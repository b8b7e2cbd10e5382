"""What the tests of the configuration share: a file, what a configuration holds, and how CONFIG SET
and a start refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from kvserver import errors
from kvserver.config import Config, ConfigError
from kvserver.config_file import load

WITH_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def no_stdin() -> str:
    raise AssertionError("standard input was read")


def everything(config: Config) -> dict[str, Any]:
    return {row.name: config.value(row.name) for row in config.rows}


def set_error(config: Config, *pairs: tuple[str, str]) -> str | None:
    """What CONFIG SET answers, without the leading ERR; None if it is OK."""
    try:
        config.set_many(pairs)
    except errors.RedisError as error:
        return str(error).removeprefix("ERR ")
    return None


def refusal(*argv: str, stdin: Callable[[], str] = no_stdin) -> str:
    with pytest.raises(ConfigError) as caught:
        load(argv, stdin)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "kvserver.conf"
