"""The recipes in examples/: short, and they run as a user runs them."""

import importlib.util
import pathlib
import re

import launching
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
FURTHER = {  # packages of the dependency group `examples`
    "equinox_module.py": "equinox",
    "haiku_transform.py": "haiku",
    "keras_stateless.py": "keras",
    "numpyro_svi.py": "numpyro",
}
RECIPES = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "digits.py")  # `make demo` in small


def falls(text):
    """Whether each line that tells of a loss tells of one that fell by a quarter at least."""
    found = [(float(first), float(last)) for first, last in re.findall(r"loss ([\d.]+) -> ([\d.]+)", text)]
    return bool(found) and all(last < 0.75 * first for first, last in found)


def run(names):
    for name, done in zip(names, launching.launch_all([[f"examples/{name}"] for name in names]), strict=True):
        assert done.status == 0, f"{name}: {done.err}"
        assert falls(done.out), f"{name}: {done.out}"


def test_recipes_run():
    run([name for name in RECIPES if name not in FURTHER])


@pytest.mark.slow
def test_recipes_of_other_frameworks_run():
    there = [name for name, package in FURTHER.items() if importlib.util.find_spec(package)]
    if not there:
        pytest.skip("the dependency group `examples` is not installed")
    run(there)


def test_recipes_are_short_and_the_others_are_known():
    for name in RECIPES:
        text = (EXAMPLES / name).read_text()
        assert text.count("\n") <= 40, name
        others = re.findall(r"^(?:import|from) (equinox|haiku|keras|numpyro)\b", text, re.MULTILINE)
        assert set(others) == {FURTHER[name]} if name in FURTHER else not others, name
