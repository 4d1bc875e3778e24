"""What the public names promise: documented, exemplified, and light to import."""

import ast
import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import shlex
import subprocess
import sys

import problems
import pytest
import reference

import asyncflax

MODULES = [
    module.name
    for module in pkgutil.walk_packages(asyncflax.__path__, "asyncflax.")
    if not any(part.startswith("_") for part in module.name.split("."))
]


def public_names():
    for module in map(importlib.import_module, ["asyncflax", *MODULES]):
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not inspect.ismodule(value) and getattr(value, "__module__", "").startswith("asyncflax"):
                yield f"{module.__name__}.{name}", value


def faults(name, value):
    text = inspect.getdoc(value) or ""
    if len(text.splitlines()) < 2:
        yield f"{name} needs a docstring"
    if ">>>" not in text and "Example: see" not in text:
        yield f"{name} needs an example"
    if inspect.isclass(value) and hasattr(value, "_fields"):
        parts, kind = [rf"^\s*{field}[:,]" for field in value._fields], "field"
    else:
        parameters = inspect.signature(value).parameters if inspect.isfunction(value) else ()
        parts, kind = [rf"\b{parameter}\b" for parameter in parameters], "argument"
    for part in parts:
        if not re.search(part, text, re.MULTILINE):
            yield f"{kind} {part} of {name} is not described"


def test_public_names_are_documented_with_an_example():
    names = dict(public_names())
    assert len(names) > 200
    assert [fault for name, value in names.items() for fault in faults(name, value)] == []


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


README = pathlib.Path(__file__).parents[1] / "README.md"
CONTRIBUTING = README.with_name("CONTRIBUTING.md")


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


DOCUMENTS = [README, CONTRIBUTING, *sorted(README.parent.joinpath("docs").glob("*.md"))]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if python_blocks(path)], ids=lambda path: path.name)
def test_the_examples_in_the_documents_run(path, tmp_path):
    blocks = python_blocks(path)
    for block in blocks:
        code = "import jax\njax.config.update('jax_enable_x64', False)\n" + block
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300, cwd=tmp_path)


def test_the_method_of_the_contributing_page_is_what_its_docstring_says(tmp_path, monkeypatch):
    """Somebody's first method, imported from a file as theirs would be, against a plain server."""
    tmp_path.joinpath("damped.py").write_text(python_blocks(CONTRIBUTING)[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "damped", raising=False)
    factory = importlib.import_module("damped").damped_multi_asgd

    class Twin(reference.MultiAsgd):
        def apply(self, g, worker, staleness, theta_read):
            super().apply(g / (1 + staleness), worker, staleness, theta_read)

    method = problems.Method("damped", factory, Twin, (("weight_decay", 0.05),))
    trace, rows = problems.some_traces()["exponential"], problems.batch_rows()
    gradient_fn = asyncflax.from_loss(problems.softmax_loss)
    result = asyncflax.run(method.make(), gradient_fn, problems.SOFTMAX_PARAMS, trace, rows)
    problems.assert_close(result.params, problems.softmax_twin(method, trace, rows).theta)


def shell_commands(path):
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split("#")[0].strip()
            if command:
                yield command


# What each launcher leaves in its folder.
MADE = {
    "compare": "table.md",
    "plan": "*.png",
    "rounds": "rounds.png",
    "streaming_pca": "claims/*.json",
    "sweep": "results.nc",
    "theory": "claims/*.json",
    "train": "training.png",
}


def test_the_commands_of_the_readme_run(tmp_path):
    """Those that start a training run shortened, each in a folder of its own; the makefile's demo is one of them.

    `make test` and the installation of the package are what .ci/run does.
    """
    root = README.parent
    commands = list(shell_commands(README))
    assert [c for c in commands if c.split()[0] in ("make", "pip")] == ["make demo", "make test", "pip install ."]
    plain = {name: value for name, value in os.environ.items() if "MAKE" not in name}  # `make test` may have begun this
    dry = ["make", "--dry-run", "--assume-old=.venv/.ready", "demo"]
    recipe = subprocess.run(dry, cwd=root, env=plain, check=True, capture_output=True, text=True).stdout.splitlines()
    launches = [c for c in (*commands, *recipe) if "launch/" in c]
    assert {re.search(r"launch/\w+\.py", c)[0] for c in launches} == {f"launch/{name}.py" for name in MADE}
    has_cifar10 = "TFDS_DATA_DIR" in os.environ
    for number, command in enumerate(launches):
        words = shlex.split(re.sub(r"(--config=\S+\.py)(:\w+)?", r"\1:fast", command))
        environment = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        assert pathlib.Path(words[0]).name.startswith("python"), command
        flags = [w for w in words[2:] if not w.startswith("--workdir")]
        if "cifar10" in command:
            if not has_cifar10:
                continue  # tests/test_launch.py has the error that says what to download
            flags += ["--config.num_updates=2", "--config.batch_size=10", "--config.log_every=1"]
        flags += ["--quick"] if words[1] == "launch/theory.py" else []
        process = subprocess.run(
            [sys.executable, words[1], *flags, f"--workdir={tmp_path / str(number)}"],
            cwd=root,
            env={**os.environ, "XLA_FLAGS": "", "JAX_ENABLE_X64": "0", **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert process.returncode == 0, process.stderr
        made = pathlib.Path(words[1]).stem
        assert list((tmp_path / str(number)).glob(MADE[made])), command


def test_the_documents_name_targets_that_there_are():
    makefile = README.with_name("Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    used = set(re.findall(r"(?:^|`)make ([a-z-]+)", README.read_text() + CONTRIBUTING.read_text(), re.MULTILINE))
    assert {"demo", "test"} <= used <= targets
