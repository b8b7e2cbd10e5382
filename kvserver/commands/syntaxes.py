"""The arguments of every command, one row each, in the notation of kvserver.syntax.

Names, types and order are those of Redis 7.4's src/commands/*.json. Commands without a row take no
arguments as far as COMMAND DOCS tells: containers, whose subcommands do, and DEBUG.
"""

from __future__ import annotations

from typing import Final

_CONDITION: Final = "[condition: NX | XX | GT | LT]"
_BITFIELD_GET: Final = "GET <get-block: encoding offset>"
_FLUSH: Final = "[flush-type: ASYNC | SYNC]"
_EXPIRATION: Final = (
    "EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds"
)

_FIELDS: Final = "FIELDS <fields: numfields(integer) field [field ...]>"
_LIMIT: Final = "[LIMIT <limit: offset count>]"
_ZRANGE: Final = f"[sortby: BYSCORE | BYLEX] [REV] {_LIMIT}"
_ZMPOP: Final = "key [key ...] <where: MIN | MAX> [COUNT count]"
_ZSETS: Final = (
    "numkeys(integer) key [key ...] [WEIGHTS weight(integer) [weight ...]]"
    " [AGGREGATE <aggregate: SUM | MIN | MAX>]"
)
_TRIM: Final = (
    "<strategy: MAXLEN | MINID> [operator: equal== | approximately=~] threshold [LIMIT count]"
)
_STREAMS: Final = "STREAMS <streams: key [key ...] id [id ...]>"

_RESTORE: Final = (
    "key ttl(integer) serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds]"
    " [FREQ frequency(integer)]"
)
_UNIT: Final = "unit: M | KM | FT | MI"
_GEOSHOWN: Final = "[WITHCOORD] [WITHDIST] [WITHHASH]"
_GEOCOUNT: Final = "[count-block: COUNT count [ANY]]"
_GEORADIUS: Final = f"radius(double) <{_UNIT}> {_GEOSHOWN} {_GEOCOUNT} [order: ASC | DESC]"
_GEOSTORE: Final = "[store: STORE storekey=key(key) | STOREDIST storedistkey=key(key)]"
_GEOSEARCH: Final = (
    "<from: FROMMEMBER member | FROMLONLAT <fromlonlat: longitude(double) latitude(double)>>"
    f" <by: <circle: BYRADIUS radius(double) <{_UNIT}>>"
    f" | <box: BYBOX width(double) height(double) <{_UNIT}>>>"
    f" [order: ASC | DESC] {_GEOCOUNT}"
)
_REPLICAOF: Final = "<args: <host-port: host port(integer)> | <no-one: NO ONE>>"

_KEYS_AND_ARGS: Final = "numkeys(integer) [key [key ...]] [arg [arg ...]]"
_WHERE_FROM: Final = "<wherefrom: LEFT | RIGHT>"
_WHERE_TO: Final = "<whereto: LEFT | RIGHT>"
_SORT: Final = (
    "key [BY by-pattern=pattern(key-pattern)] [LIMIT <limit: offset count>]"
    " [GET get-pattern=pattern(key-pattern) [GET get-pattern ...]] [order: ASC | DESC]"
    " [sorting=ALPHA]"
)

SYNTAX: Final[dict[str, str]] = {
    # bitmap
    "bitcount": "key [range: start end [unit: BYTE | BIT]]",
    "bitfield": f"key [[operation: {_BITFIELD_GET} | <write:"
    " [OVERFLOW <overflow-block: WRAP | SAT | FAIL>] <write-operation:"
    " SET <set-block: encoding offset value(integer)>"
    " | INCRBY <incrby-block: encoding offset increment>>>] [operation ...]]",
    "bitfield_ro": f"key [{_BITFIELD_GET} [GET get-block ...]]",
    "bitop": "<operation: AND | OR | XOR | NOT> destkey(key) key [key ...]",
    "bitpos": "key bit(integer) [range: start [end-unit-block: end [unit: BYTE | BIT]]]",
    "getbit": "key offset",
    "setbit": "key offset value(integer)",
    # connection
    "auth": "[username] password",
    "client|caching": "<mode: YES | NO>",
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
    "client|tracking": "<status: ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]]"
    " [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
    "client|unblock": "client-id [unblock-type: TIMEOUT | ERROR]",
    "echo": "message",
    "hello": "[arguments: protover [AUTH <auth: username password>] [SETNAME clientname]]",
    "ping": "[message]",
    "select": "index",
    # geo
    "geoadd": "key [condition: NX | XX] [change=CH] longitude(double) latitude(double) member"
    " [data: longitude latitude member ...]",
    "geodist": f"key member1 member2 [{_UNIT}]",
    "geohash": "key [member [member ...]]",
    "geopos": "key [member [member ...]]",
    "georadius": f"key longitude(double) latitude(double) {_GEORADIUS} {_GEOSTORE}",
    "georadius_ro": f"key longitude(double) latitude(double) {_GEORADIUS}",
    "georadiusbymember": f"key member {_GEORADIUS} {_GEOSTORE}",
    "georadiusbymember_ro": f"key member {_GEORADIUS}",
    "geosearch": f"key {_GEOSEARCH} {_GEOSHOWN}",
    "geosearchstore": f"destination source {_GEOSEARCH} [STOREDIST]",
    # generic
    "copy": "source destination [DB destination-db] [REPLACE]",
    "del": "key [key ...]",
    "dump": "key",
    "exists": "key [key ...]",
    "expire": f"key seconds {_CONDITION}",
    "expireat": f"key unix-time-seconds {_CONDITION}",
    "expiretime": "key",
    "keys": "pattern",
    "migrate": 'host port(integer) <key-selector: key | empty-string=""> destination-db timeout'
    " [COPY] [REPLACE] [authentication: AUTH auth=password | AUTH2 <auth2: username password>]"
    " [KEYS keys=key(key) [keys ...]]",
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
    "restore": _RESTORE,
    "scan": "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    "sort": f"{_SORT} [STORE destination]",
    "sort_ro": _SORT,
    "touch": "key [key ...]",
    "ttl": "key",
    "type": "key",
    "unlink": "key [key ...]",
    "wait": "numreplicas timeout",
    "waitaof": "numlocal(integer) numreplicas timeout",
    # hash
    "hdel": "key field [field ...]",
    "hexists": "key field",
    "hexpire": f"key seconds {_CONDITION} {_FIELDS}",
    "hexpireat": f"key unix-time-seconds {_CONDITION} {_FIELDS}",
    "hexpiretime": f"key {_FIELDS}",
    "hget": "key field",
    "hgetall": "key",
    "hgetdel": f"key {_FIELDS}",
    "hgetex": f"key [expiration: {_EXPIRATION} | PERSIST] {_FIELDS}",
    "hincrby": "key field increment",
    "hincrbyfloat": "key field increment(double)",
    "hkeys": "key",
    "hlen": "key",
    "hmget": "key field [field ...]",
    "hmset": "key field value [data: field value ...]",
    "hpersist": f"key {_FIELDS}",
    "hpexpire": f"key milliseconds {_CONDITION} {_FIELDS}",
    "hpexpireat": f"key unix-time-milliseconds {_CONDITION} {_FIELDS}",
    "hpexpiretime": f"key {_FIELDS}",
    "hpttl": f"key {_FIELDS}",
    "hrandfield": "key [options: count [WITHVALUES]]",
    "hscan": "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
    "hset": "key field value [data: field value ...]",
    "hsetex": "key [condition: FNX | FXX]"
    f" [expiration: {_EXPIRATION} | KEEPTTL]"
    " FIELDS <fields: numfields(integer) field value [data: field value ...]>",
    "hsetnx": "key field value",
    "hstrlen": "key field",
    "httl": f"key {_FIELDS}",
    "hvals": "key",
    # hyperloglog
    "pfadd": "key [element [element ...]]",
    "pfcount": "key [key ...]",
    "pfdebug": "subcommand key",
    "pfmerge": "destkey(key) [sourcekey(key) [sourcekey ...]]",
    # list
    "blmove": f"source destination {_WHERE_FROM} {_WHERE_TO} timeout(double)",
    "blmpop": "timeout(double) numkeys(integer) key [key ...] <where: LEFT | RIGHT> [COUNT count]",
    "blpop": "key [key ...] timeout(double)",
    "brpop": "key [key ...] timeout(double)",
    "brpoplpush": "source destination timeout(double)",
    "lindex": "key index",
    "linsert": "key <where: BEFORE | AFTER> pivot element",
    "llen": "key",
    "lmove": f"source destination {_WHERE_FROM} {_WHERE_TO}",
    "lmpop": "numkeys(integer) key [key ...] <where: LEFT | RIGHT> [COUNT count]",
    "lpop": "key [count]",
    "lpos": "key element [RANK rank(integer)] [COUNT num-matches(integer)] [MAXLEN len(integer)]",
    "lpush": "key element [element ...]",
    "lpushx": "key element [element ...]",
    "lrange": "key start(integer) stop(integer)",
    "lrem": "key count element",
    "lset": "key index element",
    "ltrim": "key start(integer) stop(integer)",
    "rpop": "key [count]",
    "rpoplpush": "source destination",
    "rpush": "key element [element ...]",
    "rpushx": "key element [element ...]",
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
    # scripting
    "eval": f"script {_KEYS_AND_ARGS}",
    "eval_ro": f"script {_KEYS_AND_ARGS}",
    "evalsha": f"sha1 {_KEYS_AND_ARGS}",
    "evalsha_ro": f"sha1 {_KEYS_AND_ARGS}",
    "fcall": f"function {_KEYS_AND_ARGS}",
    "fcall_ro": f"function {_KEYS_AND_ARGS}",
    "function|delete": "library-name",
    "function|flush": _FLUSH,
    "function|list": "[LIBRARYNAME library-name-pattern] [WITHCODE]",
    "function|load": "[REPLACE] function-code",
    "function|restore": "serialized-value [policy: FLUSH | APPEND | REPLACE]",
    "script|exists": "sha1 [sha1 ...]",
    "script|flush": _FLUSH,
    "script|load": "script",
    # server
    "acl|cat": "[category]",
    "acl|deluser": "username [username ...]",
    "acl|dryrun": "username command [arg [arg ...]]",
    "acl|genpass": "[bits(integer)]",
    "acl|getuser": "username",
    "acl|log": "[operation: count(integer) | RESET]",
    "acl|setuser": "username [rule [rule ...]]",
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
    "latency|graph": "event",
    "latency|histogram": "[command [command ...]]",
    "latency|history": "event",
    "latency|reset": "[event [event ...]]",
    "lolwut": "[VERSION version]",
    "memory|usage": "key [SAMPLES count]",
    "namespace|add": "namespace token",
    "namespace|del": "namespace",
    "namespace|get": "namespace",
    "namespace|set": "namespace token",
    "repldigest": "[at: AT position [TIMEOUT milliseconds]]",
    "psync": "replicationid offset",
    "replicaof": _REPLICAOF,
    "restore-asking": _RESTORE,
    "shutdown": "[save-selector: NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    "slaveof": _REPLICAOF,
    "slowlog|get": "[count]",
    "swapdb": "index1 index2",
    # set
    "sadd": "key member [member ...]",
    "scard": "key",
    "sdiff": "key [key ...]",
    "sdiffstore": "destination key [key ...]",
    "sinter": "key [key ...]",
    "sintercard": "numkeys(integer) key [key ...] [LIMIT limit(integer)]",
    "sinterstore": "destination key [key ...]",
    "sismember": "key member",
    "smembers": "key",
    "smismember": "key member [member ...]",
    "smove": "source destination member",
    "spop": "key [count]",
    "srandmember": "key [count]",
    "srem": "key member [member ...]",
    "sscan": "key cursor [MATCH pattern] [COUNT count]",
    "sunion": "key [key ...]",
    "sunionstore": "destination key [key ...]",
    # sorted-set
    "bzmpop": f"timeout(double) numkeys(integer) {_ZMPOP}",
    "bzpopmax": "key [key ...] timeout(double)",
    "bzpopmin": "key [key ...] timeout(double)",
    "zadd": "key [condition: NX | XX] [comparison: GT | LT] [change=CH] [increment=INCR]"
    " score(double) member [data: score member ...]",
    "zcard": "key",
    "zcount": "key min(double) max(double)",
    "zdiff": "numkeys(integer) key [key ...] [WITHSCORES]",
    "zdiffstore": "destination numkeys(integer) key [key ...]",
    "zincrby": "key increment member",
    "zinter": f"{_ZSETS} [WITHSCORES]",
    "zintercard": "numkeys(integer) key [key ...] [LIMIT limit(integer)]",
    "zinterstore": f"destination {_ZSETS}",
    "zlexcount": "key min max",
    "zmpop": f"numkeys(integer) {_ZMPOP}",
    "zmscore": "key member [member ...]",
    "zpopmax": "key [count]",
    "zpopmin": "key [count]",
    "zrandmember": "key [options: count [WITHSCORES]]",
    "zrange": f"key start(string) stop {_ZRANGE} [WITHSCORES]",
    "zrangebylex": f"key min max {_LIMIT}",
    "zrangebyscore": f"key min(double) max(double) [WITHSCORES] {_LIMIT}",
    "zrangestore": f"dst(key) src(key) min max {_ZRANGE}",
    "zrank": "key member [WITHSCORE]",
    "zrem": "key member [member ...]",
    "zremrangebylex": "key min max",
    "zremrangebyrank": "key start stop(integer)",
    "zremrangebyscore": "key min(double) max(double)",
    "zrevrange": "key start stop(integer) [WITHSCORES]",
    "zrevrangebylex": f"key max min {_LIMIT}",
    "zrevrangebyscore": f"key max(double) min(double) [WITHSCORES] {_LIMIT}",
    "zrevrank": "key member [WITHSCORE]",
    "zscan": "key cursor [MATCH pattern] [COUNT count]",
    "zscore": "key member",
    "zunion": f"{_ZSETS} [WITHSCORES]",
    "zunionstore": f"destination {_ZSETS}",
    # stream
    "xack": "key group id [id ...]",
    "xadd": f"key [NOMKSTREAM] [trim: {_TRIM}] <id-selector: auto-id=* | id> "
    "field value [data: field value ...]",
    "xautoclaim": "key group consumer min-idle-time start(string) [COUNT count] [JUSTID]",
    "xclaim": "key group consumer min-idle-time id [id ...] [IDLE ms(integer)]"
    " [TIME unix-time-milliseconds] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
    "xdel": "key id [id ...]",
    "xgroup|create": "key group <id-selector: id | new-id=$> [MKSTREAM]"
    " [ENTRIESREAD entriesread=entries-read(integer)]",
    "xgroup|createconsumer": "key group consumer",
    "xgroup|delconsumer": "key group consumer",
    "xgroup|destroy": "key group",
    "xgroup|setid": "key group <id-selector: id | new-id=$>"
    " [ENTRIESREAD entriesread=entries-read(integer)]",
    "xinfo|consumers": "key group",
    "xinfo|groups": "key",
    "xinfo|stream": "key [full-block: FULL [COUNT count]]",
    "xlen": "key",
    "xpending": "key group [filters: [IDLE min-idle-time(integer)] start(string) end(string) count"
    " [consumer]]",
    "xrange": "key start(string) end(string) [COUNT count]",
    "xread": f"[COUNT count] [BLOCK milliseconds] {_STREAMS}",
    "xreadgroup": "GROUP <group-block: group consumer> [COUNT count] [BLOCK milliseconds] [NOACK]"
    f" {_STREAMS}",
    "xrevrange": "key end(string) start(string) [COUNT count]",
    "xsetid": "key last-id [ENTRIESADDED entries-added(integer)] [MAXDELETEDID max-deleted-id]",
    "xtrim": f"key <trim: {_TRIM}>",
    # string
    "append": "key value",
    "cad": "key value",
    "cas": f"key old-value new-value [expiration: {_EXPIRATION}]",
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
