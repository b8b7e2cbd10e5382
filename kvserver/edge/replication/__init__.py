"""The world around the replication core: sockets, files, timers, and the server it belongs to."""
