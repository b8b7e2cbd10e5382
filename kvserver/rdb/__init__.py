"""Values in Redis' RDB format, as DUMP gives and RESTORE takes them: pure functions of bytes.

It must not know commands, rows or RocksDB. `values` has the types, `encode` writes them, and
`decode` reads every encoding that Redis up to 7.4 has written. What is decoded comes from the
network: nothing is allocated by a length that it declares, and nothing but
`errors.PayloadError` is raised.
"""
