#!/bin/sh
# Arguments for the server, or a command to run instead of it.
set -e

case "${1:-}" in
    # A configuration file decides everything; it needs a `bind` and a `dir` of its own.
    *.conf) set -- kvserver "$@" ;;
    # Later directives win, so these can be overridden.
    "" | -*) set -- kvserver --bind 0.0.0.0 --dir /data "$@" ;;
esac
exec "$@"
