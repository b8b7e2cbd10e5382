"""What must hold of a stream's rows."""

from __future__ import annotations

from headers import of_header

from kvserver.types import stream_groups, streams
from kvserver.types.stream_groups import Consumer, Group, Scope
from kvserver.types.stream_ids import SIZE
from kvserver.types.streams import Stream

#: Rows as `check_rows` takes them.
Rows = dict[bytes, bytes]


def check_rows(header: bytes, rows: Rows) -> None:
    """Entries are those of the header, and each group's rows agree with each other."""
    stream = Stream(of_header(header))
    tags = {sub[:1] for sub in rows}
    assert tags <= {b"c", b"e", b"g", b"p", b"q"}, "a row of no known kind"
    check_entries(stream, _tagged(rows, streams.ENTRY))
    consumers, pending = _tagged(rows, b"c"), _tagged(rows, b"p")
    owned = _tagged(rows, b"q")
    numbers = set()
    for name, row in _tagged(rows, b"g").items():
        group = Group(stream.rows, name, row)
        numbers.add(group.number)
        check_group(group, *(_of(group.number, some) for some in (consumers, pending, owned)))
    for some in (consumers, pending, owned):
        assert {key[:8] for key in some} <= numbers, "a row of a group that isn't there"


def _tagged(rows: Rows, tag: bytes) -> Rows:
    return {sub[1:]: row for sub, row in rows.items() if sub[:1] == tag}


def _of(number: bytes, rows: Rows) -> Rows:
    return {key[8:]: row for key, row in rows.items() if key[:8] == number}


def check_entries(stream: Stream, entries: Rows) -> None:
    ids = sorted(entries)
    assert stream.count == len(ids)
    nodes = [streams.node_of(entries[entry_id]) for entry_id in ids]
    assert nodes == sorted(nodes)
    if not ids:
        assert stream.first_id == bytes(SIZE)
        return
    assert (ids[0], ids[-1] <= stream.last_id) == (stream.first_id, True)
    assert nodes[-1] <= stream.tail_node
    head = [entry_id for entry_id, node in zip(ids, nodes, strict=True) if node == nodes[0]]
    if stream.head_entries:
        assert (stream.head_entries, stream.head_last) == (len(head), head[-1])


def check_group(group: Group, consumers: Rows, pending: Rows, owned: Rows) -> None:
    owners = {entry_id: row[16:] for entry_id, row in pending.items()}
    pairs = set()
    for key in owned:
        size = int.from_bytes(key[:4], "big")
        pairs.add((key[4 : 4 + size], key[4 + size :]))
    assert pairs == {(name, entry_id) for entry_id, name in owners.items()}
    assert set(owners.values()) <= consumers.keys()
    assert group.consumer_count == len(consumers)
    check_scope(group, sorted(owners))
    assert all(entry_id <= group.ceiling for entry_id in owners)
    for name, row in consumers.items():
        consumer = Consumer(name, 0)
        consumer.take(row)
        check_scope(consumer, sorted(one for one, owner in owners.items() if owner == name))


def check_scope(scope: Scope, ids: list[bytes]) -> None:
    assert scope.pending == len(ids)
    assert not ids or scope.floor <= ids[0]
    assert scope.gone < stream_groups._SOUGHT_EVERY
