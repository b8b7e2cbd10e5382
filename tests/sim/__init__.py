"""Simulation of replication: the real core on a simulated disk, network and clock.

`world.py` is the composition; one seed is one run, and `python -m sim <seed>` (in `tests/`) replays
it. Nothing here knows pytest.
"""
