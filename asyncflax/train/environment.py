"""The environment that a run's results depend on besides its config: JAX and XLA settings, versions, the device.

Example:
  >>> from asyncflax.train.environment import changes, environment
  >>> here = environment()
  >>> here["backend"], here["jax_default_prng_impl"]
  ('cpu', 'threefry2x32')
  >>> changes({**here, "jax_enable_x64": None}, here)[0].partition(",")[0]
  'jax_enable_x64 was None'
"""

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
_OF_THE_MESH = "--xla_force_host_platform_device_count"  # may change when a run is resumed


def environment() -> dict[str, Any]:
    """The environment of this process as a JSON dict.

    Returns:
      package versions ('unknown' if not available), device kind, JAX's backend and settings, and XLA_FLAGS without the
      number of devices.
    """
    versions = {name: _version(name) for name in _PACKAGES}
    settings = {name: getattr(jax.config, name) for name in _SETTINGS}
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag.partition("=")[0] != _OF_THE_MESH]
    place = {"device": jax.devices()[0].device_kind, "backend": jax.default_backend()}
    return {**versions, **place, **settings, "XLA_FLAGS": " ".join(sorted(flags))}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two environments, one line each; entries in only one of them are ignored.

    Args:
      before: the `environment` when the run began.
      now: the current `environment`.
    """
    return [
        f"{name} was {before[name]!r}, now it is {value!r}; the last digits may differ"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def _version(package: str) -> str:
    """The version of an installed package, or of a module imported from a checkout."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", "unknown")
