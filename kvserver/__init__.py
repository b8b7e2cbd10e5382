"""kvserver: a Redis-compatible server that keeps its data in RocksDB."""

from importlib.machinery import ExtensionFileLoader, PathFinder

__version__ = "0.1.0"
#: The version of Redis whose commands, replies and INFO fields these are.
REDIS_VERSION = "7.4.0"

_codec = PathFinder.find_spec("kvserver.codec", __path__)
#: Whether the hot modules that this process imports are compiled (setup.py: all of them or none).
COMPILED = _codec is not None and isinstance(_codec.loader, ExtensionFileLoader)
