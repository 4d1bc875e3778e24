"""The documents: their examples run, their commands are valid, their links lead somewhere."""

import ast
import dataclasses
import importlib
import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import typing

import problems
import pytest
import reference

import asyncflax
from asyncflax.lab import figures
from asyncflax.lab.compare import CompareConfig, Comparison
from asyncflax.lab.sweep import SweepConfig
from asyncflax.train import options
from asyncflax.train.config import TrainConfig

ROOT = pathlib.Path(__file__).parents[1]
README, CONTRIBUTING, DOCS = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs"
DOCUMENTS = [README, CONTRIBUTING, *sorted(DOCS.glob("*.md"))]


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def write_files(path, folder):
    """Writes the blocks that begin with a comment of the name of a file, as somebody would who follows the page."""
    for block in python_blocks(path):
        if name := re.match(r"# (\w+\.py)\n", block):
            folder.joinpath(name[1]).write_text(block)


def printed(block):
    """What a block says that it prints, in comments below a call of print."""
    return re.findall(r"^print\(.*\n# (.*)$", block, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if python_blocks(path)], ids=lambda path: path.name)
def test_the_examples_in_the_documents_run(path, tmp_path):
    write_files(path, tmp_path)
    for block in python_blocks(path):
        code = "import jax\njax.config.update('jax_enable_x64', False)\n" + block
        command = [sys.executable, "-c", code]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300, cwd=tmp_path)
        assert not printed(block) or process.stdout.splitlines() == printed(block)


def test_the_readme_is_one_page_with_what_the_project_shows():
    text = README.read_text()
    assert len(text.encode()) <= 8000
    assert text.count("![") == 1 and len(re.findall(r"^- \*\*", text, re.MULTILINE)) == 4
    assert any(printed(block) for block in python_blocks(README))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_exist_and_no_address_of_the_repository_is_invented(path):
    text = path.read_text()
    assert not re.search(r"https?://\S*/asyncflax", text)
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings], link


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
            command = re.sub(r" #.*", "", line).strip()
            if command and not command.startswith("#"):
                yield command


# What each launcher leaves in its folder.
MADE = {
    "compare": "table.md",
    "plan": "*.png",
    "rounds": "rounds.png",
    "streaming_pca": "claims/*.json",
    "study": "claims/*.json",
    "sweep": "results.nc",
    "theory": "claims/*.json",
    "train": "training.png",
}


def launches(path):
    """The commands of a document that start a launcher; those of the README are not run again for another one."""
    commands = [" ".join(c.split()) for c in shell_commands(path) if "launch/" in c]
    if path != README:
        return [c for c in commands if c not in launches(README)]
    plain = {name: value for name, value in os.environ.items() if "MAKE" not in name}  # `make test` may have begun this
    dry = ["make", "--dry-run", "--assume-old=.venv/.ready", "demo"]
    recipe = subprocess.run(dry, cwd=ROOT, env=plain, check=True, capture_output=True, text=True).stdout.splitlines()
    return commands + [c for c in recipe if "launch/" in c]


RUN = [README, DOCS / "training.md", DOCS / "configs.md"]


def test_the_readme_begins_with_three_commands_and_all_launchers_are_run():
    """`make test` and the installation of the package are what .ci/run does."""
    others = [c for c in shell_commands(README) if "launch/" not in c]
    assert others == ['pip install ".[train]"', "make demo", "make test"]
    scripts = {re.search(r"launch/\w+\.py", c)[0] for path in RUN for c in launches(path)}
    assert scripts == {f"launch/{name}.py" for name in MADE}


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_the_commands_of_the_documents_run(path, tmp_path):
    """Shortened, each with a folder of its own, where a user has a checkout and the files of the page."""
    write_files(path, tmp_path)
    for folder in ("launch", "configs"):
        tmp_path.joinpath(folder).symlink_to(ROOT / folder)
    for number, command in enumerate(launches(path)):
        words = shlex.split(re.sub(r"(--config=\S+\.py)(:\w+)?", r"\1:fast", command))
        environment = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        assert pathlib.Path(words[0]).name.startswith("python"), command
        flags = [w for w in words[2:] if not w.startswith("--workdir")]
        if "cifar10" in command:
            if "TFDS_DATA_DIR" not in os.environ:
                continue  # tests/test_launch.py has the error that says what to download
            flags += ["--config.num_updates=2", "--config.batch_size=10", "--config.log_every=1"]
        flags += ["--quick"] if words[1] in ("launch/study.py", "launch/theory.py") else []
        process = subprocess.run(
            [sys.executable, words[1], *flags, f"--workdir={tmp_path / str(number)}"],
            cwd=tmp_path,
            env={**os.environ, "XLA_FLAGS": "", "JAX_ENABLE_X64": "0", **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert process.returncode == 0, process.stderr
        for word in words:  # what the page calls the folder is read by a later command
            if word.startswith("--workdir=") and not (named := tmp_path / word.removeprefix("--workdir=")).exists():
                named.parent.mkdir(parents=True, exist_ok=True)
                named.symlink_to(tmp_path / str(number))
        made = pathlib.Path(words[1]).stem
        assert list((tmp_path / str(number)).glob(MADE[made])), command


def with_field(config, name, text):
    """A field as a flag sets it, `name` with dots."""
    *parents, field = name.split(".")
    for parent in parents:
        config = getattr(config, parent)
    (known,) = [f for f in dataclasses.fields(config) if f.name == field]
    if known.type not in (str, options.Items) and text not in ("true", "false"):
        text = (text,) if text.startswith("range") else ast.literal_eval(text)
        text = text if isinstance(text, tuple) or typing.get_origin(known.type) is not tuple else (text,)
    setattr(config, field, {"true": True, "false": False}.get(text, text) if isinstance(text, str) else text)


def check(config):
    if isinstance(config, TrainConfig):
        assert config.check().named.model
    elif isinstance(config, SweepConfig):
        figures.check(config)
    else:
        Comparison(config)


def prose(path):
    """What people read in a file."""
    if path.suffix == ".ipynb":
        return "\n\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
    return ast.get_docstring(ast.parse(path.read_text())) or "" if path.suffix == ".py" else path.read_text()


def written_commands():
    """Those of documents, docstrings, notebooks and claims; placeholders, in capitals, stand for some number."""
    folders = ("configs/*.py", "launch/*.py", "benchmarks/*.md", "notebooks/*.ipynb")
    for path in [*DOCUMENTS, *(path for folder in folders for path in sorted(ROOT.glob(folder)))]:
        for found in re.findall(r"python launch/(?:train|sweep|compare)\.py(?:\\\n|\n(?=--)|[^`\n])*", prose(path)):
            command = re.sub(r"\s+#.*", "", found.replace("\\\n", " "))
            yield re.sub(r"(--config\.\w+)=[A-Z]+\b", "", command)
    for path in sorted(ROOT.joinpath("results").glob("*.json")):
        yield json.loads(path.read_text())["command"]


@pytest.mark.slow
def test_what_all_commands_set_is_valid(tmp_path, monkeypatch):
    """Most of them take too long to be run."""
    assert len(list(written_commands())) > 60
    write_files(DOCS / "configs.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for command in written_commands():
        flags = dict(word[2:].partition("=")[::2] for word in shlex.split(command) if word.startswith("--config"))
        if "config" not in flags:
            continue
        file, _, variant = flags.pop("config").partition(":")
        path = ROOT / (file if file.endswith(".py") else f"configs/{file}.py")
        config = runpy.run_path(str(path))["get_config"](*([variant] if variant else []))
        for name, text in flags.items():
            with_field(config, name.removeprefix("config."), text)
        if hasattr(config, "train") or isinstance(config, TrainConfig):
            check(config)


KINDS = (TrainConfig, SweepConfig, CompareConfig)
IMAGES = ("classes", "image_size", "crop_area", "on_corrupt", "decode_processes")  # of ImageNet


def test_the_page_of_configs_has_a_valid_example_of_each_field():
    text, seen, name = DOCS.joinpath("configs.md").read_text(), set(), ""
    for row in re.findall(r"^\| (.*) \|$", text, re.MULTILINE):
        first, *_, last = row.split(" | ")
        name = first.strip("`| ") or name  # a row may go on with the field of the row above
        if examples := re.findall(r"`'([^`]*)'`", last):
            kinds = [kind for kind in KINDS if name in {f.name for f in dataclasses.fields(kind)}]
            seen |= {(kind, name) for kind in kinds}
            for example in examples:
                config = kinds[0]()
                with_field(config, name, example)
                if isinstance(config, SweepConfig) and name == "figure":
                    config.axes = "num_workers=(1, 2), learning_rate=(0.1, 0.2), momentum=(0, 0.3, 0.9)"
                    config.axes += f", seed={tuple(range(10))}"
                check(config)
        for field, example, free in re.findall(r"`(\w+)=([^`]*)`(\*?)", last):
            kinds = {"sweep": [SweepConfig], "comparison": [CompareConfig]}.get(name, [TrainConfig])
            seen |= {(kind, field) for kind in kinds}
            (known,) = [f for f in dataclasses.fields(kinds[0]) if f.name == field]
            assert bool(known.metadata.get("free")) == bool(free), field
            config = TrainConfig(dataset="imagenet2012") if field in IMAGES else kinds[0]()
            with_field(config, field, example.strip("'"))
            check(config)
    every = {(kind, f.name) for kind in KINDS for f in dataclasses.fields(kind)}
    assert every - seen == {(SweepConfig, "train"), (CompareConfig, "train")}


def test_the_documents_name_targets_that_there_are():
    makefile = ROOT.joinpath("Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    used = set(re.findall(r"(?:^|`)make ([a-z-]+)", README.read_text() + CONTRIBUTING.read_text(), re.MULTILINE))
    assert {"demo", "test"} <= used <= targets
