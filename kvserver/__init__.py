"""kvserver: a Redis-compatible server that keeps its data in RocksDB."""

__version__ = "0.1.0"
#: The version of Redis whose commands, replies and INFO fields these are.
REDIS_VERSION = "7.4.0"
