"""What the numbers of a run depend on beside its config: settings of JAX and XLA, versions, the device."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from typing import Any

import jax

__all__ = ["changes", "environment"]

_PACKAGES = ("asyncflax", "jax", "jaxlib", "numpy", "optax", "flax")
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)
_OF_THE_MESH = "--xla_force_host_platform_device_count"  # which may be another one when a run is resumed


def environment() -> dict[str, Any]:
    """What the last digits of a run depend on in this process, by name, as JSON has it.

    Returns:
      the versions of packages ('unknown' where nothing tells them), the kind of the device, JAX's backend, settings of
      JAX by their own names, and XLA_FLAGS without the number of devices.

    Example:
      >>> from asyncflax.train.environment import environment
      >>> here = environment()
      >>> here["backend"], here["jax_default_prng_impl"]
      ('cpu', 'threefry2x32')
    """
    versions = {name: _version(name) for name in _PACKAGES}
    settings = {name: getattr(jax.config, name) for name in _SETTINGS}
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag.partition("=")[0] != _OF_THE_MESH]
    place = {"device": jax.devices()[0].device_kind, "backend": jax.default_backend()}
    return {**versions, **place, **settings, "XLA_FLAGS": " ".join(sorted(flags))}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two environments, a line each; what only one of them has does not count.

    Args:
      before: when the run began, from `environment`.
      now: from `environment`.

    Example:
      >>> from asyncflax.train.environment import changes
      >>> changes({"jax": "0.10.1", "jax_enable_x64": False}, {"jax": "0.10.1", "jax_enable_x64": True})
      ['jax_enable_x64 was False, now it is True; the last digits may differ']
    """
    return [
        f"{name} was {before[name]!r}, now it is {value!r}; the last digits may differ"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def _version(package: str) -> str:
    """That of an installed package, or else of a module that was found on the path, as in a checkout."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", "unknown")
