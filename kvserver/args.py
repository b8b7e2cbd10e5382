"""Reading a command's arguments: numbers with Redis' rules and errors, and options in any order.

Pure functions over bytes and one cursor. Nothing here knows a command; the texts that only one
command uses are passed in.
"""

from collections.abc import Sequence
from typing import Final

from kvserver import errors, numbers
from kvserver.numbers import INT64_MAX

INT_MIN: Final = -(1 << 31)
INT_MAX: Final = (1 << 31) - 1


def parse_int(text: bytes) -> int:
    """A signed 64-bit integer (getLongLongFromObjectOrReply)."""
    value = numbers.parse_int64(text)
    if value is None:
        raise errors.not_integer()
    return value


def parse_int_in(text: bytes, low: int, high: int, message: str | None = None) -> int:
    """An integer from ``low`` to ``high``, both included (getRangeLongFromObjectOrReply).

    ``message``, without ``ERR``, replaces both errors: not an integer, and out of range.
    """
    value = numbers.parse_int64(text)
    if value is not None and low <= value <= high:
        return value
    if message is not None:
        raise errors.error(message)
    raise errors.not_integer() if value is None else errors.not_in_range(low, high)


def parse_timeout_ms(text: bytes, now_ms: int) -> int:
    """The same for commands that count in whole milliseconds."""
    timeout = numbers.parse_int64(text)
    if timeout is None:
        raise errors.timeout_not_integer()
    return _checked_timeout(timeout, now_ms)


def parse_timeout_seconds(text: bytes, now_ms: int) -> int:
    """A time-out in seconds, perhaps with a fraction, in milliseconds; 0: none
    (getTimeoutFromObjectOrReply)."""
    seconds = numbers.parse_long_double(text)
    if seconds is None:
        raise errors.timeout_not_float()
    if seconds.infinite:
        raise errors.timeout_negative() if seconds.mantissa < 0 else errors.timeout_out_of_range()
    mantissa, exponent = seconds.mantissa * 1000, seconds.exponent
    # Rounded up: a tiny time-out isn't none at all.
    timeout = mantissa << exponent if exponent >= 0 else -(-mantissa >> -exponent)
    if timeout > INT64_MAX:
        raise errors.timeout_out_of_range()
    return _checked_timeout(timeout, now_ms)


def _checked_timeout(timeout_ms: int, now_ms: int) -> int:
    if timeout_ms < 0:
        raise errors.timeout_negative()
    if timeout_ms > INT64_MAX - now_ms:
        raise errors.timeout_out_of_range()
    return timeout_ms


class Cursor:
    """Reads options from left to right. Tokens are given in capitals and match in any case::

    options = Cursor(rest)
    while options.more():
        if options.flag(b"NX"):
            only_if_missing = True
        elif (seconds := options.value(b"EX")) is not None:
            expire = parse_int(seconds)
        else:
            raise errors.syntax()
    """

    __slots__ = ("_args", "_position", "_token")

    def __init__(self, args: Sequence[bytes], start: int = 0) -> None:
        self._args = args
        self._seek(start)

    def _seek(self, position: int) -> None:
        self._position = position
        # Capitalised once for each argument, however many tokens it is compared with.
        self._token = self._args[position].upper() if position < len(self._args) else b""

    def more(self) -> bool:
        """Whether anything is left."""
        return self._position < len(self._args)

    def remaining(self) -> int:
        return len(self._args) - self._position

    def flag(self, name: bytes) -> bool:
        """Take the next argument if it is the token ``name``."""
        if self._token != name or not self.more():
            return False
        self._seek(self._position + 1)
        return True

    def value(self, name: bytes) -> bytes | None:
        """Take the next argument and the one after it if the first is the token ``name``: the
        second. A token at the very end isn't taken, and so ends as a syntax error."""
        if self._token != name or self.remaining() < 2:
            return None
        value = self._args[self._position + 1]
        self._seek(self._position + 2)
        return value

    def next(self) -> bytes:
        """Take the next argument, whatever it is."""
        if not self.more():
            raise errors.syntax()
        arg = self._args[self._position]
        self._seek(self._position + 1)
        return arg

    def take(self, count: int) -> Sequence[bytes]:
        """Take the next ``count`` arguments, such as the keys after ``numkeys``."""
        if count > self.remaining():
            raise errors.syntax()
        taken = self._args[self._position : self._position + count]
        self._seek(self._position + count)
        return taken

    def end(self) -> None:
        """There must be nothing left."""
        if self.more():
            raise errors.syntax()
