"""The arguments of every command, one row each, in the notation of kvserver.syntax.

Names, types and order are those of Redis 7.4's src/commands/*.json. Commands without a row take no
arguments as far as COMMAND DOCS tells: containers, whose subcommands do, and DEBUG.
"""

from __future__ import annotations

from typing import Final

_CONDITION: Final = "[condition: NX | XX | GT | LT]"
_FLUSH: Final = "[flush-type: ASYNC | SYNC]"
_EXPIRATION: Final = (
    "EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds"
)

_REPLICAOF: Final = "<args: <host-port: host port(integer)> | <no-one: NO ONE>>"

SYNTAX: Final[dict[str, str]] = {
    # connection
    "auth": "[username] password",
    "client|kill": "<filter: old-format=ip:port | <new-format: [ID client-id]"
    " | [TYPE <client-type: NORMAL | MASTER | SLAVE | REPLICA | PUBSUB>] | [USER username]"
    " | [ADDR addr=ip:port] | [LADDR laddr=ip:port] | [SKIPME <skipme: YES | NO>]"
    " | [MAXAGE maxage]> [...]>",
    "client|list": "[TYPE <client-type: NORMAL | MASTER | REPLICA | PUBSUB>]"
    " [ID client-id [client-id ...]]",
    "client|no-evict": "<enabled: ON | OFF>",
    "client|no-touch": "<enabled: ON | OFF>",
    "client|pause": "timeout [mode: WRITE | ALL]",
    "client|reply": "<action: ON | OFF | SKIP>",
    "client|setinfo": "<attr: LIB-NAME libname | LIB-VER libver>",
    "client|setname": "connection-name",
    "client|unblock": "client-id [unblock-type: TIMEOUT | ERROR]",
    "echo": "message",
    "hello": "[arguments: protover [AUTH <auth: username password>] [SETNAME clientname]]",
    "ping": "[message]",
    "select": "index",
    # generic
    "copy": "source destination [DB destination-db] [REPLACE]",
    "del": "key [key ...]",
    "exists": "key [key ...]",
    "expire": f"key seconds {_CONDITION}",
    "expireat": f"key unix-time-seconds {_CONDITION}",
    "expiretime": "key",
    "keys": "pattern",
    "move": "key db",
    "object|encoding": "key",
    "object|freq": "key",
    "object|idletime": "key",
    "object|refcount": "key",
    "persist": "key",
    "pexpire": f"key milliseconds {_CONDITION}",
    "pexpireat": f"key unix-time-milliseconds {_CONDITION}",
    "pexpiretime": "key",
    "pttl": "key",
    "rename": "key newkey",
    "renamenx": "key newkey",
    "scan": "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    "touch": "key [key ...]",
    "ttl": "key",
    "type": "key",
    "unlink": "key [key ...]",
    "wait": "numreplicas timeout",
    "waitaof": "numlocal(integer) numreplicas timeout",
    # pubsub
    "psubscribe": "pattern [pattern ...]",
    "publish": "channel message",
    "pubsub|channels": "[pattern]",
    "pubsub|numsub": "[channel [channel ...]]",
    "pubsub|shardchannels": "[pattern]",
    "pubsub|shardnumsub": "[shardchannel [shardchannel ...]]",
    "punsubscribe": "[pattern [pattern ...]]",
    "spublish": "shardchannel message",
    "ssubscribe": "shardchannel [shardchannel ...]",
    "subscribe": "channel [channel ...]",
    "sunsubscribe": "[shardchannel [shardchannel ...]]",
    "unsubscribe": "[channel [channel ...]]",
    # server
    "bgsave": "[SCHEDULE]",
    "command|docs": "[command-name [command-name ...]]",
    "command|getkeys": "command [arg [arg ...]]",
    "command|getkeysandflags": "command [arg [arg ...]]",
    "command|info": "[command-name [command-name ...]]",
    "command|list": "[FILTERBY <filterby: MODULE module-name | ACLCAT category | PATTERN pattern>]",
    "config|get": "parameter [parameter ...]",
    "config|set": "parameter value [data: parameter value ...]",
    "failover": "[TO <target: host port(integer) [FORCE]>] [ABORT] [TIMEOUT milliseconds]",
    "flushall": _FLUSH,
    "flushdb": _FLUSH,
    "info": "[section [section ...]]",
    "latency|histogram": "[command [command ...]]",
    "latency|history": "event",
    "latency|reset": "[event [event ...]]",
    "lolwut": "[VERSION version]",
    "memory|usage": "key [SAMPLES count]",
    "repldigest": "[at: AT position [TIMEOUT milliseconds]]",
    "psync": "replicationid offset",
    "replicaof": _REPLICAOF,
    "shutdown": "[save-selector: NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    "slaveof": _REPLICAOF,
    "slowlog|get": "[count]",
    "swapdb": "index1 index2",
    # string
    "append": "key value",
    "decr": "key",
    "decrby": "key decrement",
    "get": "key",
    "getdel": "key",
    "getex": f"key [expiration: {_EXPIRATION} | PERSIST]",
    "getrange": "key start end",
    "getset": "key value",
    "incr": "key",
    "incrby": "key increment",
    "incrbyfloat": "key increment(double)",
    "lcs": "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    "mget": "key [key ...]",
    "mset": "key value [data: key value ...]",
    "msetnx": "key value [data: key value ...]",
    "psetex": "key milliseconds value",
    "set": f"key value [condition: NX | XX] [GET] [expiration: {_EXPIRATION} | KEEPTTL]",
    "setex": "key seconds value",
    "setnx": "key value",
    "setrange": "key offset value",
    "strlen": "key",
    "substr": "key start end",
    # transactions
    "once": "writer-id n(integer) command [arg [arg ...]]",
    "watch": "key [key ...]",
}
