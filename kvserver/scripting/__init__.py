"""Scripts and functions: the Lua sandbox, the cache of scripts, libraries of functions."""
