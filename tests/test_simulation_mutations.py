"""The simulation finds what it is there to find: with each rule broken in turn, a seed fails."""

from __future__ import annotations

import logging

import pytest
from sim.mutations import MUTANTS, Mutant
from sim.runner import run_seed

import kvserver

pytestmark = pytest.mark.skipif(kvserver.COMPILED, reason="it patches the modules' functions")

#: Seeds within which each must be found; most need a few.
SEEDS = 3_000


@pytest.fixture(autouse=True)
def _quiet() -> object:
    """A broken core has much to say."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_found(mutant: Mutant) -> None:
    found = next((seed for seed in range(SEEDS) if run_seed(seed, mutant=mutant)), None)
    assert found is not None, f"{SEEDS} seeds hold although this is broken: {mutant.name}"
    assert not run_seed_unbroken(found, mutant)


def run_seed_unbroken(seed: int, mutant: Mutant) -> str:
    """The same run with the core as it is."""
    return run_seed(seed, mutant=mutant.mended())
