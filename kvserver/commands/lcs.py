"""LCS: the longest common subsequence of two strings, the very one that Redis finds.

Redis (7.4's t_string.c, lcsCommand) fills a table of L(i, j), the length of the LCS of a[:i] and
b[:j], and walks back from its last cell: it takes a match where the characters are equal, goes
to i-1 where L(i-1, j) > L(i, j-1), and to j-1 otherwise. Neighbours in the table differ by 0 or
1, so here one bit a cell says where L grows; whole rows are computed by an addition of long
integers (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004). That needs a 32nd of
Redis' memory and, in Python, a fraction of the time of a loop over the cells.

Invariants: the table is made and walked in steps of about a millisecond. Rows stand for the
prefixes of the shorter string, columns for the bytes of the longer, in strips of STRIP columns,
so that there are few rows and no integer is long.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

from kvserver import errors
from kvserver.args import Cursor, parse_int
from kvserver.codec import is_string
from kvserver.registry import READONLY, WALK, KeySpec, command
from kvserver.state.context import ReadContext

STRIP: Final = 1 << 16
ROWS_PER_STEP: Final = 64
#: What a cell of Redis' table takes; its limit holds here too.
_CELL_BYTES: Final = 4

Steps = Generator[None, None, None]
#: A common run: its first and last index in a, then those in b.
Range = tuple[int, int, int, int]


class Table:
    """Where L grows. `strips[s][row]` has bit c set if L(row, column) is one more than L(row,
    column - 1), at column s * STRIP + c + 1; row and column as in the module's text."""

    def __init__(self, shorter: bytes, longer: bytes) -> None:
        self.shorter = shorter
        self.longer = longer
        #: The length of the whole LCS, once the table is filled.
        self.length = 0
        self.strips: list[list[int]] = []

    def fill(self, keep: bool) -> Steps:
        """Compute the table; without `keep` only the length."""
        carries = bytearray(len(self.shorter))
        for start in range(0, len(self.longer), STRIP):
            part = self.longer[start : start + STRIP]
            places: dict[int, int] = {}
            for byte in set(self.shorter).intersection(part):
                places[byte] = _places(part, byte)
                yield
            rows = [0]
            for row in range(0, len(self.shorter), ROWS_PER_STEP):
                chunk = range(row, min(row + ROWS_PER_STEP, len(self.shorter)))
                self._fill_rows(rows, chunk, places, (1 << len(part)) - 1, carries)
                if not keep:
                    del rows[:-1]
                yield
            self.length += rows[-1].bit_count()
            if keep:
                self.strips.append(rows)

    def _fill_rows(
        self,
        rows: list[int],
        chunk: range,
        places: dict[int, int],
        full: int,
        carries: bytearray,
    ) -> None:
        """Append the rows of a chunk of the shorter string; `carries` go from strip to strip."""
        # Hyyrö's vector has 0 where L grows.
        vector = full ^ rows[-1]
        for at in chunk:
            matches = vector & places.get(self.shorter[at], 0)
            total = vector + matches + carries[at]
            carries[at] = total > full
            vector = (total | (vector ^ matches)) & full
            rows.append(vector ^ full)

    def last_difference(self, row: int, other: int, upto: int) -> int:
        """The last column of 1..upto where two rows differ; 0 if there is none."""
        while upto > 0:
            strip, bit = divmod(upto - 1, STRIP)
            rows = self.strips[strip]
            column = ((rows[row] ^ rows[other]) & ((2 << bit) - 1)).bit_length()
            if column:
                return strip * STRIP + column
            upto = strip * STRIP
        return 0

    def grows(self, row: int, column: int) -> bool:
        """Whether L(row, column) is one more than L(row, column - 1)."""
        strip, bit = divmod(column - 1, STRIP)
        return self.strips[strip][row] >> bit & 1 == 1


def _places(text: bytes, byte: int) -> int:
    """An integer whose bit c is set where text[c] == byte."""
    digits = bytearray(b"0" * 256)
    digits[byte] = ord("1")
    return int(text[::-1].translate(digits), 2)


class Walk:
    """The way back through a filled table, collecting ranges from the last to the first."""

    def __init__(self, table: Table, a_is_shorter: bool) -> None:
        self.table = table
        self.a_is_shorter = a_is_shorter
        self.ranges: list[Range] = []

    def run(self) -> Steps:
        """Each step consumes a byte of the shorter string."""
        advance = self._row_of_a if self.a_is_shorter else self._row_of_b
        column = len(self.table.longer)
        for row in range(len(self.table.shorter), 0, -1):
            column = advance(row, column)
            if not column:
                return
            if row % ROWS_PER_STEP == 0:
                yield

    def _row_of_a(self, i: int, j: int) -> int:
        """Rows are a's: from (i, j) along row i, to the column where the row above is entered.
        j decreases until the bytes match, or until L grows at j, since then L(i-1, j) >
        L(i, j-1)."""
        table = self.table
        growth = table.last_difference(i, 0, j)
        match = table.longer.rfind(table.shorter[i - 1], max(growth - 1, 0), j)
        if match < 0:
            return growth
        self._found(i - 1, match)
        return match

    def _row_of_b(self, j: int, i: int) -> int:
        """Rows are b's: from (i, j) along row j. i decreases while L(i, j) > L(i, j-1), until
        the bytes match; there is a match before that difference vanishes, for both began to
        differ at one. The rows last grew apart or together at `column`."""
        table = self.table
        byte = table.shorter[j - 1]
        if table.longer[i - 1] != byte:
            column = table.last_difference(j, j - 1, i)
            if not column or not table.grows(j, column):
                return i
        match = table.longer.rfind(byte, 0, i)
        self._found(match, j - 1)
        return match

    def _found(self, a: int, b: int) -> None:
        if self.ranges:
            a_first, a_last, b_first, b_last = self.ranges[-1]
            if a_first == a + 1 and b_first == b + 1:
                self.ranges[-1] = (a, a_last, b, b_last)
                return
        self.ranges.append((a, a, b, b))


class Options(NamedTuple):
    """LCS's options: LEN, IDX, MINMATCHLEN, WITHMATCHLEN."""

    length: bool
    indexes: bool
    shortest: int
    sizes: bool


def _parse(args: tuple[bytes, ...]) -> Options:
    length = indexes = sizes = False
    shortest = 0
    options = Cursor(args)
    while options.more():
        if options.flag(b"IDX"):
            indexes = True
        elif options.flag(b"LEN"):
            length = True
        elif options.flag(b"WITHMATCHLEN"):
            sizes = True
        elif (number := options.value(b"MINMATCHLEN")) is not None:
            shortest = parse_int(number)
        else:
            raise errors.syntax()
    if length and indexes:
        raise errors.error("If you want both the length and indexes, please just use IDX.")
    return Options(length, indexes, shortest, sizes)


@command(
    "lcs",
    -3,
    READONLY | WALK,
    group="string",
    since="7.0.0",
    summary="Finds the longest common substring.",
    complexity="O(N*M) where N and M are the lengths of s1 and s2, respectively",
    keys=(KeySpec(1, 2, 1, ("RO", "ACCESS")),),
    categories=("string",),
)
def lcs(
    ctx: ReadContext, a_key: bytes, b_key: bytes, *args: bytes
) -> Generator[None, None, object]:
    a, b = _strings(ctx, a_key, b_key)
    options = _parse(args)
    limit = ctx.server.config.get_int("proto-max-bulk-len")
    if (len(a) + 1) * (len(b) + 1) * _CELL_BYTES > limit:
        raise errors.error(
            "Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
        )
    return _find(a, b, options)


def _strings(ctx: ReadContext, *names: bytes) -> list[bytes]:
    rows = [ctx.db.row(name) for name in names]
    if any(row is not None and not is_string(row) for row in rows):
        raise errors.error("The specified keys must contain string values")
    return [b"" if row is None else ctx.db.string_of(row) for row in rows]


def _find(a: bytes, b: bytes, options: Options) -> Generator[None, None, object]:
    a_is_shorter = len(a) <= len(b)
    table = Table(a, b) if a_is_shorter else Table(b, a)
    yield from table.fill(keep=not options.length)
    if options.length:
        return table.length
    walk = Walk(table, a_is_shorter)
    yield from walk.run()
    if options.indexes:
        return {b"matches": _matches(walk.ranges, options), b"len": table.length}
    return b"".join(a[first : last + 1] for first, last, _, _ in reversed(walk.ranges))


def _matches(ranges: list[Range], options: Options) -> list[list[object]]:
    found: list[list[object]] = []
    for a_first, a_last, b_first, b_last in ranges:
        size = a_last - a_first + 1
        if size >= options.shortest:
            match: list[object] = [[a_first, a_last], [b_first, b_last]]
            found.append([*match, size] if options.sizes else match)
    return found
