"""Side-by-side measurements of kvserver and redis-server; `make bench` runs them."""
