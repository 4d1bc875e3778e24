"""The study of the theorems, in small: its claims come out, and its measurements find what was put in."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from looks import check, kept

from asyncflax import theory
from asyncflax.lab import claims
from asyncflax.lab.studies import theorems

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    with kept() as figures:
        found = {claim.name: claim for claim in theorems.study(workdir, quick=True)}
    return workdir, found, figures


def test_figures_can_be_read(study):
    names = ["figure-2.png", "measured-momentum.png", "stability.png", "staleness.png", "theorem-5.png"]
    assert sorted(study[2]) == names
    for figure in study[2].values():
        check(figure)


def test_identities_hold_to_rounding(study):
    for name in ("theorem-2", "theorem-3", "theorem-5"):
        assert study[1][name].value < 1e-12 and study[1][name].confidence == 1.0
    assert study[1]["stability-constant"].value < 1e-9


@pytest.mark.parametrize("name", ["theorem-5-simulated", "staleness-geometric", "measured-momentum"])
def test_measurements_hold_seven_eighths(study, name):
    """With margin: an interval of 95 % may miss, twice it hardly."""
    claim = study[1][name]
    low, high = claim.interval
    assert abs(claim.value - 0.875) < high - low < 0.05


def test_other_claims(study):
    assert study[1]["staleness-mean"].interval == pytest.approx((7.0, 7.0), abs=0.02)
    assert study[1]["stability-order"].value == pytest.approx(0.84307, abs=1e-5)
    assert study[1]["measured-momentum-coverage"].interval[1] > 0.95
    assert study[1]["figure-2"].value == pytest.approx(5.0, abs=1e-3)
    assert study[1]["figure-2"].interval == (5.0, 6.0)
    assert study[1]["figure-2-runs"].value == pytest.approx(4.95, abs=0.05)


def test_claims_are_files_with_figures_and_the_command_that_was_run(study, tmp_path):
    workdir, found, _ = study
    assert {claim.name: claim for claim in claims.collect(workdir / "claims", tmp_path / "results")} == found
    assert {claim.command for claim in found.values()} == {"python launch/theory.py --workdir=runs/theory --quick"}
    with pytest.raises(FileExistsError, match=r"claims holds an earlier study; pass overwrite=True"):
        theorems.study(workdir, quick=True)


def test_the_momentum_of_the_mean_is_found_in_runs():
    """Runs whose mean is known: momentum 0.6, and noise of its own in each."""
    rng, x = np.random.default_rng(0), theory.mean_iterates(theory.ExponentialQueue(4), 0.3, 30)
    runs = x + 0.05 * rng.standard_normal((2000, len(x)))
    value, low, high = theorems._momentum_of_the_mean(runs, 0.3, rng)
    assert low < 0.75 < high and low < value < high and high - low < 0.05


def test_the_launcher_refuses_what_is_there(tmp_path):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "mine.json").touch()
    process = subprocess.run(
        [sys.executable, "launch/theory.py", f"--workdir={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1 and process.stderr.startswith(f"error: {tmp_path}/claims holds an earlier study")
    assert "--overwrite" in process.stderr
