"""Who follows whom, as INFO replication tells it: what a failover checks before it begins.

It must not know connections. Invariant: two servers are of one lineage if and only if their
replication ids are equal (docs/replication.md, R4), so ids are compared and not epochs.
"""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

from kvserver.admin.client import Address, AdminError, Info

NO_FAILOVER: Final = "no-failover"


class Replica(NamedTuple):
    """A replica as its primary lists it."""

    address: Address
    state: str
    position: int


def replicas(info: Info) -> list[Replica]:
    """The primary's replicas: `slave0:ip=127.0.0.1,port=6380,state=online,offset=7,lag=0`."""
    found = []
    for number in range(int(info.get("connected_slaves", 0))):
        row = info.get(f"slave{number}")
        if row is not None:  # they may come and go while INFO is written
            fields = dict(part.partition("=")[::2] for part in row.split(","))
            address = Address(fields["ip"], int(fields["port"]))
            found.append(Replica(address, fields["state"], int(fields["offset"])))
    return found


def check(source: Address, primary: Info, target: Address, replica: Info) -> Replica:
    """The target as the primary knows it, if it may take over. Raises AdminError."""
    if primary["role"] != "master":
        raise AdminError(f"{source} is not a primary")
    if (state := primary["master_failover_state"]) != NO_FAILOVER:
        raise AdminError(f"{source} is in a failover already: {state}")
    if replica["role"] != "slave":
        raise AdminError(f"{target} is not a replica")
    found = _listed(target, replicas(primary))
    if found is None:
        raise AdminError(f"{target} is not among the replicas that {source} lists")
    if found.state != "online":
        raise AdminError(f"{target} is not online: {found.state}")
    if replica["master_link_status"] != "up":
        raise AdminError(f"the link of {target} to its primary is down")
    if replica["master_replid"] != primary["master_replid"]:
        raise AdminError(f"{target} has another replication id than {source}")
    return found


def check_distance(primary: Info, replica: Info, limit: int) -> int:
    """How many positions the target is behind. Raises AdminError above the limit."""
    behind = max(0, int(primary["master_repl_offset"]) - int(replica["slave_repl_offset"]))
    if behind > limit:
        raise AdminError(f"the target is {behind} positions behind, more than --max-behind {limit}")
    return behind


def _listed(target: Address, listed: list[Replica]) -> Replica | None:
    """The row of the target: names and addresses may differ, what they stand for must not."""
    hosts = {target.host, *_resolve(target)}
    return next(
        (
            replica
            for replica in listed
            if replica.address.port == target.port
            and (replica.address.host in hosts or hosts & _resolve(replica.address))
        ),
        None,
    )


def _resolve(address: Address) -> set[str]:
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(entry[4][0]) for entry in found}
