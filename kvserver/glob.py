"""Redis' glob patterns: ``*``, ``?``, ``[a-z]``, ``[^a]`` and ``\\``, over bytes.

They follow util.c stringmatchlen to the letter, oddities included:

- a class without its ``]`` ends with the pattern; ``[]`` matches nothing, ``[^]`` any byte;
- a range may be reversed, and compares bytes as signed; ``[a-]`` is a range that ends in ``]``;
- ignoring case folds ASCII, but not an escaped byte of a class; the ends of a range are put in
  order before they are folded, so that ``[Z-a]`` matches nothing;
- the empty string is matched by the empty pattern alone, not by ``*``;
- a pattern with more than 1000 stars before its last part matches nothing.

A pattern is a row of tokens: a set of bytes, one of which must stand at that place, or a star.
Since every token but a star takes one byte, the leftmost match of the part between two stars is
as good as any other. Both matchers rest on this: they never go back over a star, and need at most
len(pattern) * len(string) steps.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

Matcher = Callable[[bytes], bool]
Token = frozenset[int] | None  # None is a star

ANY: Final = frozenset(range(256))

# Longer patterns are walked as they are: re keeps the last 512 that it compiled, whatever their
# size, and reading all of a pattern of megabytes before it is used would hold up the server.
_MAX_COMPILED: Final = 512
_MAX_STARS: Final = 1000

_ASTERISK, _QUESTION, _BRACKET, _CLOSE, _CARET, _BACKSLASH, _DASH = b"*?[]^\\-"

_EXACT: Final = [frozenset((byte,)) for byte in range(256)]
_FOLDED: Final = [frozenset(bytes((b,)).lower() + bytes((b,)).upper()) for b in range(256)]


def compile(pattern: bytes, nocase: bool = False) -> Matcher:
    """A function that says whether a string as a whole matches ``pattern``."""
    if len(pattern) > _MAX_COMPILED:
        return lambda string: _walk(pattern, nocase, string)
    tokens = list(_tokens(pattern, nocase))
    prefix = _leading_literal(tokens)
    rest = tokens[len(prefix) :]
    if not rest:
        return lambda string: string == prefix
    if rest == [None]:
        return lambda string: string != b"" and string.startswith(prefix)
    match = re.compile(_expression(tokens), re.DOTALL).fullmatch
    return lambda string: match(string) is not None


def literal_prefix(pattern: bytes) -> bytes:
    """What every string that matches begins with, case regarded: a place to seek to.

    It may be shorter than it could be where the pattern is longer than 512 bytes.
    """
    return _leading_literal(_tokens(pattern[:_MAX_COMPILED], False))


def is_literal(pattern: bytes) -> bool:
    """Whether ``literal_prefix(pattern)`` is the one string that matches, case regarded.

    Said of no pattern longer than 512 bytes.
    """
    if len(pattern) > _MAX_COMPILED:
        return False
    return all(token is not None and len(token) == 1 for token in _tokens(pattern, False))


def _leading_literal(tokens: list[Token] | Iterator[Token]) -> bytes:
    prefix = bytearray()
    for token in tokens:
        if token is None or len(token) != 1:
            break
        prefix.extend(token)
    return bytes(prefix)


# Reading a pattern


def _tokens(pattern: bytes, nocase: bool) -> Iterator[Token]:
    at = 0
    while at < len(pattern):
        token, at = _token(pattern, at, nocase)
        yield token


def _token(pattern: bytes, at: int, nocase: bool) -> tuple[Token, int]:
    """The token at ``at`` and where the next begins; a run of stars is one token."""
    byte = pattern[at]
    at += 1
    if byte == _ASTERISK:
        while at < len(pattern) and pattern[at] == _ASTERISK:
            at += 1
        return None, at
    if byte == _QUESTION:
        return ANY, at
    if byte == _BRACKET:
        return _class(pattern, at, nocase)
    if byte == _BACKSLASH and at < len(pattern):
        byte = pattern[at]
        at += 1
    return (_FOLDED if nocase else _EXACT)[byte], at


def _class(pattern: bytes, at: int, nocase: bool) -> tuple[frozenset[int], int]:
    """The class whose ``[`` is before ``at``, and where the next token begins."""
    negated = pattern[at : at + 1] == b"^"
    if negated:
        at += 1
    members: set[int] = set()
    while at < len(pattern) and pattern[at] != _CLOSE:
        left = len(pattern) - at
        if pattern[at] == _BACKSLASH and left >= 2:
            members.add(pattern[at + 1])
            at += 2
        elif left >= 3 and pattern[at + 1] == _DASH:
            members |= _range(pattern[at], pattern[at + 2], nocase)
            at += 3
        else:
            members |= (_FOLDED if nocase else _EXACT)[pattern[at]]
            at += 1
    return (ANY - members if negated else frozenset(members)), min(at + 1, len(pattern))


@lru_cache(maxsize=1024)
def _range(first: int, last: int, nocase: bool) -> frozenset[int]:
    # C's char is signed on the machines whose replies are the reference.
    low, high = sorted((_signed(first), _signed(last)))
    if not nocase:
        return frozenset(byte for byte in ANY if low <= _signed(byte) <= high)
    low, high = _lower(low), _lower(high)
    return frozenset(byte for byte in ANY if low <= _lower(_signed(byte)) <= high)


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _lower(char: int) -> int:
    return char + 32 if 65 <= char <= 90 else char


# Matching


def _expression(tokens: list[Token]) -> bytes:
    """A regular expression for ``fullmatch`` with DOTALL; at least one token is not None.

    An atomic group takes the leftmost match of a part between stars and holds on to it; the part
    after the last star is looked for at the end and nowhere else.
    """
    parts: list[list[bytes]] = [[]]
    for token in tokens:
        if token is None:
            parts.append([])
        else:
            parts[-1].append(_set_expression(token))
    if len(parts) == 1:
        return b"".join(parts[0])
    middle = b"".join(b"(?>.*?%b)" % b"".join(part) for part in parts[1:-1])
    first, last = b"".join(parts[0]), b"".join(parts[-1])
    return b"%b%b.{%d,}+(?<=%b)" % (first, middle, len(parts[-1]), last)


def _set_expression(token: frozenset[int]) -> bytes:
    if len(token) == 1:
        return re.escape(bytes(token))
    if token == ANY:
        return b"."
    if not token:
        return b"[^\\x00-\\xff]"
    return b"[%b]" % b"".join(b"\\x%02x" % byte for byte in sorted(token))


def _walk(pattern: bytes, nocase: bool, string: bytes) -> bool:
    """Match without compiling: after a mismatch, try the part after the last star one byte on."""
    if not string:
        return not pattern
    at = position = stars = 0
    retry_at = retry_position = -1
    while position < len(string):
        if at < len(pattern):
            token, after = _token(pattern, at, nocase)
            if token is None:
                stars += 1
                if after == len(pattern) or stars > _MAX_STARS:
                    return after == len(pattern)
                at = retry_at = after
                retry_position = position
                continue
            if string[position] in token:
                at = after
                position += 1
                continue
        if retry_at < 0:
            return False
        retry_position += 1
        at, position = retry_at, retry_position
    return pattern.count(b"*", at) == len(pattern) - at
