"""Strict: float64, eight devices on the CPU, no silent rank promotion; warnings are errors (pyproject.toml)."""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=15)
hypothesis.settings.register_profile("all", deadline=None, max_examples=100)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """A compiled program keeps memory mappings; a process that runs most of the tests would run out of them."""
    yield
    jax.clear_caches()
