"""`python -m kvserver`."""

from kvserver.cli import main

main()
