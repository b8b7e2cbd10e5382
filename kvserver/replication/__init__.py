"""Replication without input and output: bytes and events in, bytes and actions out.

It must not know asyncio, sockets, files or rocksdict; `ports.py` says what it asks of the world
around it. docs/replication.md describes the protocol and its rules R1 to R6.
"""
