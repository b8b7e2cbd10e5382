r"""Redis' quoting of words on a line: inline commands and configuration files.

Source: Redis 7.4's sds.c, sdssplitargs. A word is bare characters and then maybe a quoted part,
which ends the word. In double quotes \xHH, \n, \r, \t, \b and \a stand for their bytes and any
other character after a backslash for itself; in single quotes only \' is special. A NUL ends the
line.
"""

from __future__ import annotations

import re
from typing import Final

# What may stand before a word or after a quote is isspace(); a bare word also holds \v and \f.
_BLANKS: Final = re.compile(rb"[ \t\n\v\f\r]*")
_WORD: Final = re.compile(
    rb"""
    (?P<bare> [^"' \t\n\r]* )
    (?: (?: "(?P<double> (?: [^"\\] | \\. )* )"
          | '(?P<single> (?: [^'\\] | \\' | \\(?!') )* )' )
        (?= [ \t\n\v\f\r] | \Z )
      | (?= [ \t\n\r] | \Z ) )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
#: Without these a line's words are what is between blanks.
_SPECIAL: Final = re.compile(rb"[\"'\0\v\f]")
#: What stands for a byte after a backslash in double quotes.
ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_args(line: bytes) -> list[bytes] | None:
    """The words of a line; None when quotes are unbalanced."""
    if _SPECIAL.search(line) is None:
        return line.split()
    line = line.partition(b"\0")[0]
    words: list[bytes] = []
    at = _end_of_blanks(line, 0)
    while at < len(line):
        match = _WORD.match(line, at)
        if match is None:
            return None
        words.append(_word(match))
        at = _end_of_blanks(line, match.end())
    return words


def _end_of_blanks(line: bytes, at: int) -> int:
    match = _BLANKS.match(line, at)
    return match.end() if match is not None else at


def _word(match: re.Match[bytes]) -> bytes:
    bare, double, single = match.groups()
    if double is not None:
        return bare + _ESCAPE.sub(_unescape, double)
    if single is not None:
        return bare + single.replace(b"\\'", b"'")
    return bare


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if len(code) == 3:
        return bytes([int(code[1:], 16)])
    return ESCAPES.get(code, code)
