"""The directives of kvserver, one row each, in the groups of conf/kvserver.conf.

Names, defaults, bounds and units are those of redis.conf 7.4, those of ``rocksdb.*`` and
``max-io-mb`` kvrocks.conf's. A directive that nothing in the server reads must not have a row;
what tools ask for and kvserver can't vary is a ``Fixed`` row that tells the truth.

After a change here write conf/kvserver.conf again; tests/test_config.py says how.
"""

from typing import Final, NamedTuple

from kvserver.config import (
    INT_MAX,
    LONG_MAX,
    MIB,
    UINT_MAX,
    Bool,
    Config,
    Directory,
    Enum,
    Fixed,
    Int,
    Lines,
    Octal,
    Row,
    Size,
    Text,
)
from kvserver.kinds import (
    Addresses,
    BufferLimit,
    BufferLimits,
    EventFlags,
    MemorySize,
    Percentiles,
    Primary,
    Users,
)


class Group(NamedTuple):
    """Rows under one heading of conf/kvserver.conf."""

    title: str
    rows: tuple[Row, ...]


_FILE: Final = Text("the path of a file")
_COUNT: Final = Int(0, INT_MAX)
_PORT: Final = Int(0, 65535)

# A table: laid out by hand.
# fmt: off
_FILES: Final = Group(
    "Other files",
    (
        Row("include", Lines(1, "the path of a file, or a pattern that may match none"), "",
            "Reads another configuration file at this place; later lines override earlier ones.",
            immutable=True, file_only=True, example="/etc/kvserver/conf.d/*.conf"),
    ),
)

_NETWORK: Final = Group(
    "Network",
    (
        Row("bind", Addresses(), "127.0.0.1 -::1",
            "The addresses to listen on, for port and tls-port."),
        Row("port", _PORT, "6379", "The TCP port; 0 turns it off."),
        Row("unixsocket", _FILE, "",
            "The path of a unix socket to listen on as well.",
            immutable=True, example="/run/kvserver/kvserver.sock"),
        Row("unixsocketperm", Octal(0o777), "0",
            "The permissions of the unix socket; 0 leaves them to the umask.", immutable=True),
        Row("protected-mode", Bool(), "yes",
            "Without a password, serves only clients that come from this machine."),
        Row("tcp-backlog", _COUNT, "511",
            "How many connections may wait to be accepted; net.core.somaxconn limits it too.",
            immutable=True),
        Row("tcp-keepalive", _COUNT, "300",
            "Seconds after which a silent connection is probed, so that a dead one is found; "
            "0 sends no probes."),
        Row("timeout", _COUNT, "0",
            "Seconds after which an idle client is disconnected; 0 keeps it."),
    ),
)

_TLS: Final = Group(
    "TLS",
    (
        Row("tls-port", _PORT, "0", "The TCP port for TLS connections; 0 turns it off."),
        Row("tls-cert-file", _FILE, "",
            "The server's certificate, followed by its chain, in PEM.",
            reload=True, example="/etc/kvserver/server.crt"),
        Row("tls-key-file", _FILE, "",
            "The private key of that certificate, in PEM.",
            reload=True, example="/etc/kvserver/server.key"),
        Row("tls-key-file-pass", Text("any text"), "",
            "The passphrase of the private key, if it is encrypted.",
            secret=True, example="passphrase"),
        Row("tls-ca-cert-file", _FILE, "",
            "The certificates that clients' certificates are checked against, in PEM.",
            reload=True, example="/etc/kvserver/ca.crt"),
        Row("tls-ca-cert-dir", Text("the path of a directory"), "",
            "A directory of such certificates, with the names that openssl rehash gives them.",
            reload=True, example="/etc/ssl/certs"),
        Row("tls-auth-clients", Enum("no", "yes", "optional"), "yes",
            "Whether clients need a valid certificate; with optional, only one that is sent must "
            "be valid."),
        Row("tls-protocols", Text("TLSv1.2, TLSv1.3 or both in quotes"), "",
            "The versions of TLS; empty is both.", example='"TLSv1.2 TLSv1.3"'),
        Row("tls-ciphers", Text("a list as in ciphers(1ssl)"), "",
            "The ciphers for TLS 1.2; empty leaves them to OpenSSL, as those for 1.3 are.",
            example="DEFAULT:!MEDIUM"),
        Row("tls-prefer-server-ciphers", Bool(), "no",
            "Takes the server's order of preference among ciphers instead of the client's."),
    ),
)

_GENERAL: Final = Group(
    "Process and log",
    (
        Row("supervised", Enum("systemd", "auto", "no"), "auto",
            "Reports readiness to systemd through NOTIFY_SOCKET; auto does so if that is set.",
            immutable=True),
        Row("pidfile", _FILE, "",
            "A file that holds the process id while the server runs.",
            immutable=True, example="/run/kvserver/kvserver.pid"),
        Row("loglevel", Enum("debug", "verbose", "notice", "warning", "nothing"), "notice",
            "The least severity that is logged."),
        Row("logfile", _FILE, "",
            "The file that the log is appended to; empty is standard output.",
            immutable=True, example="/var/log/kvserver/kvserver.log"),
        Row("log-format", Enum("line", "json"), "line",
            "Log lines as Redis writes them, or one JSON object each.", immutable=True),
        Row("databases", Int(1, 1 << 15), "16",
            "The number of databases that SELECT can choose from.", immutable=True),
        Row("hz", Int(0, INT_MAX, clamp=(1, 500)), "10",
            "How many times a second the periodic work runs; values are moved into 1 to 500."),
        Row("shutdown-timeout", _COUNT, "10",
            "Seconds that a shutdown waits at most for work that is still under way."),
    ),
)

_SECURITY: Final = Group(
    "Security",
    (
        Row("requirepass", Text("any text"), "",
            "The password that clients must give with AUTH or HELLO; empty asks for none.",
            secret=True, example="a-long-random-password"),
        Row("user", Users(), "",
            "A user and what it may do, as in ACL SETUSER; may stand several times.",
            immutable=True, secret=True, file_only=True, rewritten=True,
            example="alice on >a-long-random-password ~alice:* +@all -@dangerous"),
        Row("aclfile", _FILE, "",
            "A file of users, for ACL LOAD and ACL SAVE; instead of `user`.",
            immutable=True, example="/etc/kvserver/users.acl"),
        Row("acl-pubsub-default", Enum("allchannels", "resetchannels"), "resetchannels",
            "Whether a new user may use all channels, or none."),
        Row("acllog-max-len", Int(0, LONG_MAX), "128", "The entries that ACL LOG keeps."),
        Row("rename-command", Lines(2, 'a command and its new name, or "" to remove it'), "",
            "Gives a command another name, or none; may stand several times.",
            immutable=True, secret=True, file_only=True, example='FLUSHALL ""'),
        Row("enable-debug-command", Enum("no", "yes", "local"), "no",
            "Whether DEBUG may be called; with local, only by clients on this machine.",
            immutable=True),
    ),
)

_CLIENTS: Final = Group(
    "Limits for clients",
    (
        Row("maxclients", Int(1, UINT_MAX), "10000", "How many clients may be connected at once."),
        Row("proto-max-bulk-len", Size(MIB), "512mb",
            "The longest argument of a command, and so the longest string value."),
        Row("client-query-buffer-limit", Size(MIB), "1gb",
            "The bytes of a client's requests that are held at most before they are executed."),
        Row("client-output-buffer-limit", BufferLimits(),
            "normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60",
            "Disconnects a client whose unread replies exceed the hard size, or the soft size for "
            "that many seconds; 0 is no limit, and a class that is left out keeps its limits."),
        Row("tracking-table-max-keys", Int(0, LONG_MAX), "1000000",
            "The keys that CLIENT TRACKING remembers at most; 0 sets no limit."),
    ),
)

_DATA: Final = Group(
    "Data",
    (
        Row("dir", Directory(), "./data",
            "The directory that holds the data; made if it is missing.", immutable=True),
        Row("appendfsync", Enum("everysec", "always", "no"), "everysec",
            "When the log is forced to disk: every second, before a write is answered, or when the "
            "kernel gets to it."),
        Row("appendonly", Fixed("yes", "every write goes to RocksDB's log; see appendfsync"), "yes",
            "Persistence is always on; appendfsync says how strict it is."),
        Row("save", Fixed("", "every write is logged, no snapshot is due at any time"), "",
            "There are no snapshot points; BGSAVE makes a backup."),
        Row("maxmemory", Fixed("0", "the data is on disk, memory does not limit it"), "0",
            "Nothing is evicted; row-cache-size and rocksdb.block_cache_size bound the memory."),
        Row("maxmemory-policy", Enum("noeviction"), "noeviction", "No key is ever evicted."),
        Row("hll-sparse-max-bytes", Size(), "3000",
            "A HyperLogLog whose sparse representation would be larger becomes dense."),
        Row("stream-node-max-bytes", Size(), "4096",
            "How large nodes of streams would be in Redis, where XTRIM ~ drops whole ones; 0 sets "
            "no limit."),
        Row("stream-node-max-entries", Int(0, LONG_MAX), "100",
            "The same in entries."),
        Row("writer-id-expiration", Int(0, INT_MAX, "seconds"), "604800",
            "How long a writer of ONCE that sends nothing is remembered; 0 is for ever."),
        Row("row-cache-size", MemorySize(), "25%",
            "The memory for rows that were read or written lately: a size, or a share of what the "
            "machine, or the container, has."),
    ),
)

#: Up to where Redis would use the small encodings: what OBJECT ENCODING answers, and which
#: collections the SCAN family returns whole.
_ENCODINGS: Final = Group(
    "Encodings",
    (
        Row("hash-max-listpack-entries", Int(0, LONG_MAX), "512",
            "OBJECT ENCODING says listpack for a hash of at most so many fields.",
            aliases=("hash-max-ziplist-entries",)),
        Row("hash-max-listpack-value", Size(), "64",
            "OBJECT ENCODING says listpack for a hash whose fields and values are at most so long.",
            aliases=("hash-max-ziplist-value",)),
        Row("list-max-listpack-size", Int(-INT_MAX - 1, INT_MAX), "-2",
            "OBJECT ENCODING says listpack for a list of at most so many elements, or, if "
            "negative, of at most 4, 8, 16, 32 or 64 KB (-1 to -5).",
            aliases=("list-max-ziplist-size",)),
        Row("set-max-intset-entries", Int(0, INT_MAX), "512",
            "OBJECT ENCODING says intset for a set of at most so many integers."),
        Row("set-max-listpack-entries", Int(0, INT_MAX), "128",
            "OBJECT ENCODING says listpack for a set of at most so many members."),
        Row("set-max-listpack-value", Int(0, INT_MAX), "64",
            "OBJECT ENCODING says listpack for a set whose members are at most so long."),
        Row("zset-max-listpack-entries", Int(0, LONG_MAX), "128",
            "OBJECT ENCODING says listpack for a sorted set of at most so many members.",
            aliases=("zset-max-ziplist-entries",)),
        Row("zset-max-listpack-value", Int(0, LONG_MAX), "64",
            "OBJECT ENCODING says listpack for a sorted set whose members are at most so long.",
            aliases=("zset-max-ziplist-value",)),
    ),
)

_REPLICATION: Final = Group(
    "Replication",
    (
        Row("replicaof", Primary(), "no one",
            "The primary that this server follows at its start; REPLICAOF changes it, and CONFIG "
            "REWRITE writes it.",
            aliases=("slaveof",), immutable=True),
        Row("masterauth", Text("any text"), "",
            "The password for the primary; empty gives none.",
            secret=True, example="a-long-random-password"),
        Row("masteruser", Text("the name of a user"), "",
            "The user for the primary; empty gives the password alone.", example="replica"),
        Row("tls-replication", Bool(), "no", "Connects to the primary with TLS."),
        Row("replica-announce-ip", Text("an address or a name"), "",
            "The address under which others reach this server; empty is that of its connection.",
            aliases=("slave-announce-ip",), example="192.0.2.10"),
        Row("replica-announce-port", _PORT, "0",
            "The port under which others reach this server; 0 is the one that it listens on.",
            aliases=("slave-announce-port",)),
        Row("replica-announced", Bool(), "yes",
            "Whether Sentinel tells its clients of this replica."),
        Row("replica-priority", _COUNT, "100",
            "Of several replicas Sentinel promotes the one with the lowest; 0 is never promoted.",
            aliases=("slave-priority",)),
        Row("replica-read-only",
            Fixed("yes", "a replica is physically equal to its primary, and a write of its own "
                  "would make them differ"), "yes",
            "Replicas take no writes of clients.", aliases=("slave-read-only",)),
        Row("replica-serve-stale-data", Bool(), "yes",
            "Whether a replica answers while its link to the primary is down.",
            aliases=("slave-serve-stale-data",)),
        Row("repl-timeout", Int(1, INT_MAX, "seconds"), "60",
            "A link on which nothing comes for so long is ended."),
        Row("repl-ping-replica-period", Int(1, INT_MAX, "seconds"), "10",
            "How often a primary tells its replicas that it is there.",
            aliases=("repl-ping-slave-period",)),
        Row("min-replicas-to-write", _COUNT, "0",
            "A primary with fewer good replicas refuses writes; 0 never.",
            aliases=("min-slaves-to-write",)),
        Row("min-replicas-max-lag", Int(0, INT_MAX, "seconds"), "10",
            "A replica that was silent for longer isn't good; 0 turns min-replicas-to-write off.",
            aliases=("min-slaves-max-lag",)),
        Row("replica-ack-quorum", _COUNT, "0",
            "A write is answered when so many replicas have it."),
        Row("replica-ack-timeout", Int(0, INT_MAX, "milliseconds"), "5000",
            "After so long a write that waits for replica-ack-quorum is answered with NOREPLICAS; "
            "0 waits for ever."),
        Row("max-replication-mb", Int(0, INT_MAX, "MiB a second"), "0",
            "What full syncs may send at most, all replicas together; 0 sets no limit."),
        Row("replication-max-full-syncs", Int(1, INT_MAX), "4",
            "How many replicas may receive a full sync at once; the others wait."),
        Row("replication-snapshot-max-age", Int(0, INT_MAX, "seconds"), "60",
            "How long a checkpoint serves replicas that ask for a full sync after the first one."),
        Row("replication-rewind", Bool(), "yes",
            "A replica with writes that its primary doesn't have takes them back, instead of "
            "copying everything; they are kept in dir/rewound."),
        Row("replication-rewind-max-bytes", Size(), "256mb",
            "The keys and values of such writes; with more of them everything is copied."),
        Row("replication-enable-sequence-padding", Bool(), "no",
            "Positions that a replica can't take are passed over, where primary and replica both "
            "say yes: the replica goes on without those writes, at the price of consistency."),
    ),
)

_OBSERVATION: Final = Group(
    "Notifications, slow log and latency",
    (
        Row("notify-keyspace-events", EventFlags(), "",
            "The events that are published: K and E choose the channels, the other characters the "
            "classes of event; empty is none.", example="KEA"),
        Row("slowlog-log-slower-than", Int(-1, LONG_MAX, "microseconds"), "10000",
            "Commands that take longer go to the slow log; 0 logs all, -1 none."),
        Row("slowlog-max-len", Int(0, LONG_MAX), "128", "The entries that the slow log keeps."),
        Row("latency-monitor-threshold", Int(0, LONG_MAX, "milliseconds"), "0",
            "Events that take at least this long go to LATENCY; 0 turns it off."),
        Row("busy-reply-threshold", Int(0, LONG_MAX, "milliseconds"), "5000",
            "A script that runs for longer may be killed, and others are told BUSY; 0: never.",
            aliases=("lua-time-limit",)),
        Row("latency-tracking", Bool(), "yes",
            "Keeps a histogram of the latency of each command, for INFO and LATENCY HISTOGRAM."),
        Row("latency-tracking-info-percentiles", Percentiles(), "50 99 99.9",
            "The percentiles that INFO latencystats shows."),
    ),
)

_ROCKSDB: Final = Group(
    "RocksDB",
    (
        Row("rocksdb.block_cache_size", Int(0, INT_MAX, "MiB"), "256",
            "The memory for blocks of the data files.", immutable=True),
        Row("rocksdb.block_size", Int(1024, 1 << 30, "bytes"), "8192",
            "The size of a block before compression.", immutable=True),
        Row("rocksdb.compression", Enum("no", "snappy", "lz4", "zstd", "zlib"), "lz4",
            "How the data files are compressed; files that are there stay as they are.",
            immutable=True),
        Row("rocksdb.write_buffer_size", Int(1, 4096, "MiB"), "8",
            "Writes that gather in memory, for each column family, before they go to a data file.",
            immutable=True),
        Row("rocksdb.max_write_buffer_number", Int(2, 256), "4",
            "Write buffers of a column family that may be in memory at once.", immutable=True),
        Row("rocksdb.max_background_jobs", Int(1, 32), "4",
            "Flushes and compactions that may run at once.", immutable=True),
        Row("rocksdb.max_open_files", Int(-1, INT_MAX), "8096",
            "Data files that are kept open; -1 is all.", immutable=True),
        Row("rocksdb.target_file_size_base", Int(1, 1024, "MiB"), "64",
            "The size of a data file.", immutable=True),
        Row("rocksdb.max_bytes_for_level_base", Int(MIB, LONG_MAX, "bytes"), "67108864",
            "The size of level 1 of the tree of data files.", immutable=True),
        Row("rocksdb.max_bytes_for_level_multiplier", Int(1, 100), "10",
            "How many times larger each further level is.", immutable=True),
        Row("rocksdb.level0_file_num_compaction_trigger", Int(1, 1024), "8",
            "Files in level 0 that start a compaction.", immutable=True),
        Row("rocksdb.level0_slowdown_writes_trigger", Int(1, 1024), "20",
            "Files in level 0 from which on writes are slowed down.", immutable=True),
        Row("rocksdb.level0_stop_writes_trigger", Int(1, 1024), "40",
            "Files in level 0 from which on writes wait.", immutable=True),
        Row("rocksdb.max_total_wal_size", Int(0, INT_MAX, "MiB"), "128",
            "The log that is not yet in data files, and so what a start after a crash replays.",
            immutable=True),
        Row("rocksdb.wal_ttl_seconds", _COUNT, "10800",
            "Seconds that log files which the data files have overtaken are kept for replicas; "
            "0 sets no time."),
        Row("rocksdb.wal_size_limit_mb", Int(0, INT_MAX, "MiB"), "16384",
            "The size of the log files that are kept for replicas; 0 sets no limit."),
        Row("rocksdb.stats_dump_period_sec", _COUNT, "0",
            "How often, in seconds, RocksDB writes statistics to its own log; 0 never.",
            immutable=True),
        Row("rocksdb.delete_obsolete_files_period_micros", Int(0, LONG_MAX, "microseconds"),
            "21600000000",
            "How often RocksDB looks for files that it no longer needs.", immutable=True),
        Row("max-io-mb", Int(0, INT_MAX, "MiB a second"), "0",
            "What flushes and compactions may write at most; 0 sets no limit.", immutable=True),
    ),
)

# fmt: on

GROUPS: Final = (
    _FILES,
    _NETWORK,
    _TLS,
    _GENERAL,
    _SECURITY,
    _CLIENTS,
    _DATA,
    _ENCODINGS,
    _REPLICATION,
    _OBSERVATION,
    _ROCKSDB,
)
DIRECTIVES: Final = tuple(row for group in GROUPS for row in group.rows)


def default_config() -> Config:
    """A new configuration with every directive at its default."""
    return Config(DIRECTIVES)


def buffer_limit(config: Config, client_class: str) -> BufferLimit:
    """The limit now; ``client_class`` is normal, replica or pubsub."""
    limits: tuple[BufferLimit, ...] = config.value("client-output-buffer-limit")
    return limits[BufferLimits.CLASSES[client_class]]
