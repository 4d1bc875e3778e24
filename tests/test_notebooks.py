"""The notebooks are well-formed and run, in their fast mode, without an error.

python tests/test_notebooks.py [NAME ...]    # runs them in full and keeps the new outputs (`make notebooks`)
"""

import base64
import io
import os
import pathlib
import re
import resource
import sys
import tempfile
import time

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from PIL import Image

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NAMES = (
    "asynchrony_begets_momentum",
    "closed_loop_momentum",
    "how_stale_is_too_stale",
    "negative_momentum",
    "ordered_momentum",
    "streaming_pca",
    "which_method_for_my_cluster",
    "why_dana_looks_ahead",
    "your_own_optax_loop",
)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
LARGEST = 400_000  # bytes
LINES = 15


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str, folder: pathlib.Path, *, fast: bool) -> nbformat.NotebookNode:
    """The notebook with new outputs: run by this interpreter in a folder, with nothing of the settings of the tests."""
    notebook = read(name)
    kernels = KernelSpecManager(kernel_dirs=[])  # none that is installed: python3 is then sys.executable
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=kernels)
    manager.connection_file = os.fspath(folder / "kernel.json")
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=900,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--Application.log_level=40"],  # errors
        resources={"metadata": {"path": os.fspath(folder)}},
    )
    client.owns_km = True  # it stops the kernel at the end
    client.execute(env=environment(folder, fast))
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data = {"image/png": smaller(output.data["image/png"])}
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def smaller(png: str) -> str:
    """A figure in 128 colors: a third of the bytes, and the same to the eye."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def environment(folder: pathlib.Path, fast: bool) -> dict[str, str]:
    """Of a kernel: without the eight devices of the tests, with nobody's profile, and no backend of matplotlib's."""
    without = ("XLA_FLAGS", "MPLBACKEND", "ASYNCFLAX_FAST")
    kept = {name: value for name, value in os.environ.items() if name not in without and not name.startswith("JAX_")}
    own = {"JAX_PLATFORMS": "cpu", "IPYTHONDIR": os.fspath(folder / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return kept | own | ({"ASYNCFLAX_FAST": "1"} if fast else {})


def texts(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell has printed."""
    return [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]


def test_all_notebooks_are_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_structure(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST
    first, install, *_, last = notebook.cells
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert re.search(r"https://arxiv\.org/abs/\d{4}\.\d{5}", first.source)
    assert install.cell_type == "code" and "pip install" in install.source and "find_spec" in install.source
    assert last.cell_type == "markdown" and "## What to try next" in last.source
    assert any("ASYNCFLAX_FAST" in cell.source for cell in notebook.cells[2:6])


@pytest.mark.parametrize("name", NAMES)
def test_links_into_the_repository_are_relative_and_exist(name):
    """Nobody has checked that an address of the repository exists, so none is written down."""
    text = "\n".join(cell.source for cell in read(name).cells)
    assert not re.search(r"(github|colab)\S*/asyncflax", text)
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
        assert (FOLDER / link).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short_and_their_outputs_kept(name):
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        assert len(cell.source.splitlines()) <= LINES, f"a cell of more than {LINES} lines:\n{cell.source}"
        assert cell.execution_count == number, f"not run in order:\n{cell.source}"
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result")
            assert output.get("name") != "stderr", f"a warning is kept:\n{output.text}"
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    said = "\n".join(text for cell in code for text in texts(cell))
    assert not re.search(r"(/home/|/root|/Users/|/tmp|/work|/var/|[A-Z]:\\)", said), "a path of one machine"
    hosts = {os.uname().nodename, os.environ.get("USER", "")} - {"", "root", "localhost"}
    assert not [host for host in hosts if len(host) > 3 and host in said]
    assert not re.search(r" at 0x[0-9a-f]{6,}", said), "an address in memory"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs(name, tmp_path):
    notebook = execute(name, tmp_path, fast=True)  # an error in a cell is raised
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr" or "Warning" not in output.text, f"{cell.source}\n{output.text}"


def main(names: list[str]) -> None:
    """Runs notebooks in full, one after the other, and keeps their outputs."""
    for name in names or NAMES:
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        fast = os.environ.get("ASYNCFLAX_FAST") == "1"
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(name, pathlib.Path(folder), fast=fast)
        path = FOLDER / f"{name}.ipynb"
        if not fast:
            nbformat.write(notebook, path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = path.stat().st_size
        print(f"{name}: {time.monotonic() - began:.0f} s, {cpu:.0f} s of CPU time, {size:,} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
