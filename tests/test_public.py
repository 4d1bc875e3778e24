"""What the public names promise: documented, exemplified, and light to import."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re
import subprocess
import sys

import asyncflax
from asyncflax import algorithms
from asyncflax.base import WeightDecay

MODULES = [
    module.name
    for module in pkgutil.walk_packages(asyncflax.__path__, "asyncflax.")
    if not any(part.startswith("_") for part in module.name.split("."))
    and not module.name.startswith("asyncflax.commands")  # programs, each with its flags
]


def public_names():
    for module in map(importlib.import_module, ["asyncflax", *MODULES]):
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not inspect.ismodule(value) and getattr(value, "__module__", "").startswith("asyncflax"):
                yield f"{module.__name__}.{name}", value


def around(value):
    """The module that defines something, and the packages it is in."""
    parts = value.__module__.split(".")
    return [sys.modules[".".join(parts[:n])] for n in range(2, len(parts) + 1)]


def faults(name, value):
    """What is missing.

    An example may be that of a neighbour in the module, or of the package; arguments that several functions share may
    be described in the docstring of the module or the package. Records and exceptions need no example.
    """
    text = inspect.getdoc(value) or ""
    pages = "\n".join(inspect.getdoc(module) or "" for module in around(value))
    sources = "\n".join(map(inspect.getsource, around(value)))
    shown = re.compile(rf"^ *(>>>|\.\.\.) .*\b{value.__name__}\b", re.MULTILINE)
    if len(text.splitlines()) < 2:
        yield f"{name} needs a docstring"
    is_record = inspect.isclass(value) and hasattr(value, "_fields")
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    if not (is_record or is_error or ">>>" in text or "Example: see" in text or shown.search(sources)):
        yield f"{name} needs an example"
    if is_record:
        missing = [field for field in value._fields if not re.search(rf"^\s*(\w+, )*{field}[:,]", text, re.MULTILINE)]
    else:
        parameters = inspect.signature(value).parameters if inspect.isfunction(value) else ()
        missing = [p for p in parameters if not (re.search(rf"\b{p}\b", text) or f"`{p}`" in pages)]
    for part in missing:
        yield f"{part} of {name} is not described"


def test_public_names_are_documented_with_an_example():
    names = dict(public_names())
    assert len(names) > 200
    assert [fault for name, value in names.items() for fault in faults(name, value)] == []


def test_what_methods_have_in_common_is_said_once():
    parameters = [set(inspect.signature(getattr(algorithms, name)).parameters) for name in algorithms.__all__]
    shared = set.intersection(*parameters)
    assert shared == {"learning_rate", *WeightDecay.__annotations__}
    assert [name for name in shared if f"`{name}`" not in algorithms.__doc__] == []


def test_the_page_says_what_is_public():
    """All that some module exports is exported by one that the page names."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "library.md").read_text()
    table = page.split("## What is public")[1].split("\n## ")[0].split("|---|---|")[1]
    cells = [row.split("|")[2] for row in table.strip().splitlines()]
    listed = {"asyncflax" if name == "asyncflax" else f"asyncflax.{name}" for name in re.findall("`(.+?)`", str(cells))}

    def exports(name):
        module = importlib.import_module(name)
        return {id(getattr(module, n)) for n in getattr(module, "__all__", ())}

    public = {name: exports(name) for name in listed}
    assert all(public.values())
    assert [name for name in MODULES if not exports(name) <= set().union(*public.values())] == []


def test_a_name_is_one_thing():
    """No package exports a function under the name of one of its modules; methods of one paper have its file."""
    for package in ["asyncflax", *(name for name in MODULES if hasattr(importlib.import_module(name), "__path__"))]:
        inside = {name.removeprefix(f"{package}.") for name in MODULES if name.startswith(f"{package}.")}
        exported = getattr(importlib.import_module(package), "__all__", ())
        both = [n for n in inside & {*exported} if not inspect.ismodule(getattr(sys.modules[package], n))]
        assert both == [] or package == "asyncflax.algorithms", f"{package}: {both}"


def test_what_is_loaded_late_is_what_type_checkers_see():
    for package in ("asyncflax", "asyncflax.theory", "asyncflax.train"):
        module = importlib.import_module(package)
        (block,) = [
            node
            for node in ast.parse(pathlib.Path(module.__file__).read_text()).body
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ]
        seen = {alias.name for node in block.body for alias in node.names}
        assert seen == set(module._HOMES), package
        assert all(getattr(module, name) is not None for name in seen)


def test_importing_loads_the_core_only(tmp_path):
    """jax, optax and numpy, and no wing: no network library, no TensorFlow, no checkpointing, no plotting."""
    heavy = ["flax", "tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "sklearn", "pandas", "scipy.stats"]
    code = f"""if True:
        import asyncflax, sys
        own = [name.split(".") for name in sys.modules if name.startswith("asyncflax.")]
        print([m for m in {heavy!r} if m in sys.modules], [name for name in own if len(name) > 2], len(own) + 1)
    """
    command = [sys.executable, "-W", "ignore", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split("] ")
    assert found[:2] == ["[", "["] and int(found[2]) <= 16


def test_the_version_is_that_of_the_package():
    assert importlib.metadata.version("asyncflax") == asyncflax.__version__


def test_the_version_has_one_place_and_the_citation_follows():
    root = pathlib.Path(__file__).parents[1]
    assert f"\nversion: {asyncflax.__version__}\n" in (root / "CITATION.cff").read_text()
    assert 'dynamic = ["version"]' in (root / "pyproject.toml").read_text()
