"""The command line: `kvserver [/path/kvserver.conf] [--directive value ...]`, and sub-commands.

It must not know what a server is made of. Every reason not to start is one line on standard
error (and in the log), exit status 1.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from kvserver import __version__, config_file, logs
from kvserver.acl.loading import configured_user
from kvserver.acl.selector import RuleError
from kvserver.admin import failover, rewound
from kvserver.config import Config, ConfigError, wire
from kvserver.edge.app import run
from kvserver.edge.listeners import ListenError
from kvserver.state.acl import startup_users
from kvserver.state.table import CommandTable
from kvserver.storage.commitlog import EngineError

logger = logging.getLogger("kvserver")

USAGE = """\
Usage: kvserver [/path/to/kvserver.conf] [--directive value ...] [-]
       kvserver - (read the configuration from standard input)
       kvserver failover --from HOST:PORT --to HOST:PORT [option ...]
       kvserver rewound list|show [--dir DIR] [option ...]
       kvserver -v or --version
       kvserver -h or --help

Examples:
       kvserver
       kvserver /etc/kvserver.conf
       kvserver --port 7777 --dir /var/lib/kvserver
       kvserver /etc/kvserver.conf --loglevel debug
       echo 'appendfsync always' | kvserver -

`kvserver failover --help` and `kvserver rewound --help` say more.
The directives, with their defaults, are in conf/kvserver.conf.
"""

#: Sub-commands: the arguments behind the name, to the exit status.
TOOLS: dict[str, Callable[[Sequence[str]], int]] = {
    "failover": failover.main,
    "rewound": rewound.main,
}


def main() -> None:
    """The console script."""
    argv = sys.argv[1:]
    if argv and argv[0] in ("-v", "--version"):
        print(f"kvserver v={__version__}")
        return
    if argv and argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if argv and argv[0] in TOOLS:
        sys.exit(TOOLS[argv[0]](argv[1:]))
    sys.exit(_serve(argv))


def _rename_check() -> Callable[[Sequence[str]], None]:
    """What refuses a `rename-command` of a command that isn't there, or to a name that is."""
    table = CommandTable()
    return lambda words: table.rename(*words)


def _check_user(words: Sequence[str]) -> None:
    """Refuses a `user` whose rules aren't right."""
    try:
        configured_user([wire(word) for word in words], all_channels=False)
    except RuleError as error:
        raise ConfigError(str(error)) from None


def _serve(argv: list[str]) -> int:
    checks = {"rename-command": _rename_check(), "user": _check_user}
    try:
        config = config_file.load(argv, sys.stdin.read, checks)
        _set_up_log(config)
        startup_users(config)  # before any data is touched
        run(config)
    except (ConfigError, EngineError, ListenError, OSError) as error:
        print(f"kvserver: {error}", file=sys.stderr)
        return 1
    return 0


def _set_up_log(config: Config) -> None:
    level, path = config.get_str("loglevel"), config.get_str("logfile")
    try:
        logs.setup(level, path, config.get_str("log-format"), lambda: _role(config))
    except OSError as error:
        raise ConfigError(f"logfile: can't open {path}: {error.strerror}") from None


def _role(config: Config) -> str:
    """The letter of log lines; the directive follows the role (`Dispatcher.role_changed`)."""
    return "M" if config.value("replicaof") is None else "S"
