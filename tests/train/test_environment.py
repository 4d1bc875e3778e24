"""What belongs to the numbers of a run beside its config."""

import importlib.metadata
import json

import jax
import pytest

import asyncflax
from asyncflax.train.environment import changes, environment


@pytest.mark.parametrize(
    "setting, name, value",
    [
        (jax.enable_x64, "jax_enable_x64", False),
        (jax.default_matmul_precision, "jax_default_matmul_precision", "highest"),
        (jax.default_prng_impl, "jax_default_prng_impl", "rbg"),
        (jax.threefry_partitionable, "jax_threefry_partitionable", False),
    ],
)
def test_a_setting_of_jax_that_differs_is_one_line_with_its_name(setting, name, value):
    before = json.loads(json.dumps(environment()))
    assert changes(before, environment()) == []
    with setting(value):
        [line] = changes(before, environment())
    assert line == f"{name} was {before[name]!r}, now it is {value!r}; the last digits may differ"
    assert changes(before, environment()) == []


def test_flags_of_xla_count_in_any_order_without_the_number_of_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_b --xla_force_host_platform_device_count=8")
    before = environment()
    monkeypatch.setenv("XLA_FLAGS", "--xla_b  --xla_force_host_platform_device_count=2 --xla_a=1")
    assert changes(before, environment()) == []
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=2 --xla_b")
    [line] = changes(before, environment())
    assert line.startswith("XLA_FLAGS was '--xla_a=1 --xla_b', now it is '--xla_a=2 --xla_b'; ")


def test_a_checkout_that_is_not_installed_has_a_version(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    found = environment()
    assert found["asyncflax"] == asyncflax.__version__ and found["jax"] == jax.__version__
    monkeypatch.delattr(asyncflax, "__version__")
    assert environment()["asyncflax"] == "unknown"


def test_a_run_that_began_without_a_record_of_it_has_no_note():
    assert changes({"jax": jax.__version__}, environment()) == []
