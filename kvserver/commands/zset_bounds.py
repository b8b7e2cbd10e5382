"""Ranges of scores and of members, as the commands on sorted sets take them, and where they are in
the index.

Source: Redis 7.4's t_zset.c, zslParseRange and zslParseLexRange.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile, islice, takewhile
from typing import Final

from kvserver import errors
from kvserver.codec import prefix_end
from kvserver.numbers import parse_strtod
from kvserver.storage.overlay import Entry
from kvserver.types.zsets import MEMBER_AT, PLACE_AT, SortedSet, ordered

_EXCLUSIVE: Final = b"("
_INCLUSIVE: Final = b"["
#: Before every member, and after every member.
_FIRST: Final = b"-"
_LAST: Final = b"+"


class ScoreRange:
    """From one score to another, each of them included or not."""

    def __init__(self, least: bytes, most: bytes) -> None:
        self._least, self._above_least = _score(least)
        self._most, self._below_most = _score(most)

    def _places(self) -> tuple[bytes, bytes]:
        """The places [lower, upper) of the elements in the range."""
        lower, upper = ordered(self._least), ordered(self._most)
        return (
            prefix_end(lower) if self._above_least else lower,
            upper if self._below_most else prefix_end(upper),
        )

    def entries(self, found: SortedSet, reverse: bool = False, offset: int = 0) -> Iterator[Entry]:
        """The index rows in the range, but for the first ones."""
        lower, upper = self._places()
        return found.scan_between(lower, upper, offset, reverse)

    def count(self, found: SortedSet) -> int:
        """How many elements are in the range."""
        lower, upper = self._places()
        return found.between(lower, upper)


def _score(text: bytes) -> tuple[float, bool]:
    """(a score, whether it is outside the range)."""
    exclusive = text.startswith(_EXCLUSIVE)
    score = parse_strtod(text[1:] if exclusive else text)
    if score is None:
        raise errors.error("min or max is not a float")
    return score, exclusive


class LexRange:
    """From one member to another. All are meant to have the same score; where they haven't, this
    does what Redis does with a listpack: the range ends at the first member beyond it."""

    def __init__(self, least: bytes, most: bytes) -> None:
        self._least = _lex_item(least)
        self._most = _lex_item(most)

    def entries(self, found: SortedSet, reverse: bool = False, offset: int = 0) -> Iterator[Entry]:
        """The index rows in the range, but for the first ones."""
        first, last = _ends(found)
        if first[PLACE_AT:MEMBER_AT] == last[PLACE_AT:MEMBER_AT]:
            lower, upper = self._places(first[PLACE_AT:MEMBER_AT])
            return found.scan_between(lower, upper, offset, reverse)
        if self._is_empty() or self._is_below(last) or self._is_above(first):
            return iter(())
        most = min(offset, found.count)
        # The first ones are passed over without a look whether they are in the range.
        if reverse:
            rest = dropwhile(self._is_above_entry, found.scan(reverse=True))
            return takewhile(self._not_below_entry, islice(rest, most, None))
        rest = dropwhile(self._is_below_entry, found.scan())
        return takewhile(self._not_above_entry, islice(rest, most, None))

    def count(self, found: SortedSet) -> int:
        """How many elements are in the range."""
        first, last = _ends(found)
        if first[PLACE_AT:MEMBER_AT] == last[PLACE_AT:MEMBER_AT]:
            return found.between(*self._places(first[PLACE_AT:MEMBER_AT]))
        return sum(1 for _ in self.entries(found))

    def _places(self, score: bytes) -> tuple[bytes, bytes]:
        """The places [lower, upper) of the elements in the range, all of them of one score."""
        least, most = self._least, self._most
        if self._is_empty():
            return score, score
        lower = score + least[1:] + (b"\0" if least[:1] == _EXCLUSIVE else b"")
        if most == _LAST:
            return lower, prefix_end(score)
        return lower, score + most[1:] + (b"" if most[:1] == _EXCLUSIVE else b"\0")

    def _is_empty(self) -> bool:
        """Whether nothing can be in the range (zslIsInLexRange)."""
        least, most = self._least, self._most
        if least == _LAST or most == _FIRST:
            return True
        if least == _FIRST or most == _LAST:
            return False
        exclusive = least[:1] == _EXCLUSIVE or most[:1] == _EXCLUSIVE
        return least[1:] > most[1:] or (least[1:] == most[1:] and exclusive)

    def _is_below(self, key: bytes) -> bool:
        """Whether the member of an index row is before the range."""
        least, member = self._least, key[MEMBER_AT:]
        if least == _FIRST:
            return False
        return member < least[1:] or (member == least[1:] and least[:1] == _EXCLUSIVE)

    def _is_above(self, key: bytes) -> bool:
        """Whether it is after the range."""
        most, member = self._most, key[MEMBER_AT:]
        if most == _LAST:
            return False
        return member > most[1:] or (member == most[1:] and most[:1] == _EXCLUSIVE)

    def _is_below_entry(self, entry: Entry) -> bool:
        return self._is_below(entry[0])

    def _is_above_entry(self, entry: Entry) -> bool:
        return self._is_above(entry[0])

    def _not_below_entry(self, entry: Entry) -> bool:
        return not self._is_below(entry[0])

    def _not_above_entry(self, entry: Entry) -> bool:
        return not self._is_above(entry[0])


def _ends(found: SortedSet) -> tuple[bytes, bytes]:
    """The whole keys of the first and the last index row."""
    return next(found.scan())[0], next(found.scan(reverse=True))[0]


def _lex_item(text: bytes) -> bytes:
    """One end of the range, `-` and `+` without what may follow a NUL."""
    first = text[:1]
    if first in (_EXCLUSIVE, _INCLUSIVE):
        return text
    if first in (_FIRST, _LAST) and text[1:2] in (b"", b"\0"):
        return first
    raise errors.error("min or max not valid string range item")
