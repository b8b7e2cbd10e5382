"""The edge: sockets, timers, threads and processes; everything below is free of asyncio."""
