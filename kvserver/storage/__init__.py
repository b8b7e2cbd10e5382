"""Storage: RocksDB, its write-ahead log, and the caches in front of them."""
