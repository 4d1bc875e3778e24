"""Strict: float64, eight devices on the CPU, no silent rank promotion; warnings are errors (pyproject.toml).

Most of the tests' time is XLA compiling small programs. So they are compiled quickly rather than well, unless XLA_FLAGS
says how well, as in `make test-all`; and what was compiled is kept, for all processes and for the next run, in the
folder that JAX_COMPILATION_CACHE_DIR names (`.pytest_cache/xla` by default). Launchers and notebooks, which tests start
as processes, are compiled as users have them.
"""

import itertools
import os
import pathlib

import jaxlib

if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    if jaxlib.version.__version_info__ < (0, 11):  # later ones do not know the flag
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

MOST_MAPPINGS = 40_000  # Linux allows 65,530, and twenty tests may need some thousands
MOST_GROWTH = 1.5 * 2**30  # bytes that a process may grow by before it forgets

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=15)
hypothesis.settings.register_profile("all", deadline=None, max_examples=100)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


_tests, _bytes_after = itertools.count(), [0]


@pytest.fixture(autouse=True)
def forget_compiled_programs():
    """A compiled program keeps memory and mappings; a process that runs most of the tests would run out of them."""
    yield
    if next(_tests) % 20:
        return
    if read_proc("maps").count(b"\n") > MOST_MAPPINGS or resident_bytes() > _bytes_after[0] + MOST_GROWTH:
        jax.clear_caches()
        _bytes_after[0] = resident_bytes()


def resident_bytes() -> int:
    return int((read_proc("statm").split() or [0, 0])[1]) * os.sysconf("SC_PAGE_SIZE")


def read_proc(name: str) -> bytes:
    """What Linux tells a process of itself; nothing elsewhere."""
    path = pathlib.Path("/proc/self") / name
    return path.read_bytes() if path.exists() else b""
