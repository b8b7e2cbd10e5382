"""Scripts and functions of one server: their parts in one place. It must not know sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvserver.scripting.functions import Functions
from kvserver.scripting.runner import Runner
from kvserver.scripting.scripts import Scripts

if TYPE_CHECKING:
    from kvserver.state.server import Server


class Scripting:
    """What EVAL, SCRIPT, FCALL and FUNCTION work with."""

    def __init__(self, server: Server) -> None:
        self.runner = Runner(server)
        self.scripts = Scripts(self.runner)
        self.functions = Functions(self.runner, server.log)
