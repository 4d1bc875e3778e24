"""Studies of single methods: verdicts where the answer is known, and the studies in small."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from looks import check, kept

import asyncflax
from asyncflax import algorithms, queues, theory
from asyncflax.errors import RunError
from asyncflax.lab import claims, statistics
from asyncflax.lab.studies import methods
from asyncflax.lab.studies.methods import closed_loop, constant_delay, outer_momentum, stable_rates
from asyncflax.lab.studies.methods._trainings import Trainings

JUDGED = [name for name in methods.names() if name != "constant_delay"]


@pytest.mark.parametrize("name", JUDGED)
def test_designs_are_those_that_were_committed_and_choose_on_other_seeds(name):
    module = importlib.import_module(f"asyncflax.lab.studies.methods.{name}")
    assert module.criterion(module.DESIGN) == module.CRITERION
    assert module.criterion(module.QUICK) != module.CRITERION
