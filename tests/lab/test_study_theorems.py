"""The study of the theorems, in small: its claims come out, and its measurements find what was put in."""

import dataclasses
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
from asyncflax.lab.studies.theorems import published
from asyncflax.lab.studies.theorems._facts import of_all
from asyncflax.lab.studies.theorems.queueing import momentum_of_the_mean

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    with kept() as figures:
        found = {claim.name: claim for claim in theorems.study(workdir, quick=True)}
    return workdir, found, figures


def test_figures_can_be_read(study):
    names = ["figure-2", "figure-6", "figure-7", "measured-momentum", "stability", "staleness"]
    names += ["theorem-2", "theorem-3", "theorem-5", "theorems-6-and-7"]
    assert sorted(study[2]) == [f"{name}.png" for name in names]
    for figure in study[2].values():
        check(figure)


def test_identities_hold_to_rounding(study):
    for name in ("theorem-2", "theorem-3", "theorem-5", "theorems-6-and-7"):
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


def test_each_verdict_is_what_the_numbers_say(study):
    """Few runs have wide intervals; what is exact is decided all the same."""
    wide = {"theorem-5-simulated", "staleness-geometric", "measured-momentum", "measured-momentum-coverage"}
    found = {name: claim.verdict for name, claim in study[1].items()}
    assert {name for name, verdict in found.items() if verdict == "refuted"} == {"figure-2-values"}
    assert {name for name, verdict in found.items() if verdict == "not decided"} <= wide
    assert found["figure-2-runs"] == "seen"  # of 0.8 alone, which is what a quick study looks at


def test_an_identity_that_does_not_hold_is_refuted(monkeypatch, tmp_path):
    kernel = theory.momentum_kernel
    monkeypatch.setattr(theory, "momentum_kernel", lambda q: kernel(q)._replace(current=kernel(q).current + 1e-9))
    (claim,) = theorems.study(tmp_path, only=("theorem-2",), quick=True)
    assert claim.verdict == "refuted" and 1e-12 < claim.value < 1e-8


def test_points_that_are_read_wrong_are_refuted(monkeypatch, tmp_path):
    implicit, points = published.FIGURE_7
    monkeypatch.setattr(published, "FIGURE_7", (implicit, (*points[:-1], points[-1] + 0.02)))
    (claim,) = theorems.study(tmp_path, only=("figure-7",), quick=True)
    assert claim.verdict == "refuted" and "within 0.027" in claim.ours


@pytest.mark.parametrize(
    "verdicts, verdict",
    [(["seen", "seen"], "seen"), (["seen", "not decided"], "not decided"), (["not decided", "refuted"], "refuted")],
)
def test_a_claim_of_several_numbers_takes_all_and_is_refuted_by_one(verdicts, verdict):
    assert of_all(verdicts) == verdict


def test_the_points_of_the_figures_begin_where_closed_forms_are_known():
    """Synchronous heavy ball and gradient descent: the paper's own points are this near to them."""
    for condition, points in published.FIGURE_6.items():
        root = condition**0.5
        assert points[0] == pytest.approx(((root - 1) / (root + 1)) ** 2, abs=0.007)
    assert published.FIGURE_7[1][0] == pytest.approx((9 / 11) ** 10, abs=0.003)


def test_claims_are_files_with_figures_and_the_command_that_makes_them(study, tmp_path):
    workdir, found, _ = study
    assert {claim.name: claim for claim in claims.collect(workdir / "claims", tmp_path / "results")} == found
    assert found["theorem-3"].command == "asyncflax theory --only=theorem-3 --quick --workdir=runs/theorem-3"
    assert all(claim.cpu_minutes > 0 for claim in found.values())
    with pytest.raises(FileExistsError, match=r"claims holds an earlier study; pass overwrite=True"):
        theorems.study(workdir, quick=True)


def test_some_checks_give_what_all_of_them_give(study, tmp_path):
    """And a study that was stopped leaves nothing that is taken for one."""
    (tmp_path / "claims.part").mkdir()
    (tmp_path / "claims.part" / "theorem-2.json").touch()
    found = theorems.study(tmp_path, only=("theorem-3", "figure-7"), quick=True)
    assert [claim.name for claim in found] == ["theorem-3", "figure-7"]
    for claim in found:
        whole = study[1][claim.name]
        assert dataclasses.replace(claim, cpu_minutes=whole.cpu_minutes) == whole
    (tmp_path / "claims" / "mine.txt").touch()
    theorems.study(tmp_path, only=("theorem-2",), quick=True, overwrite=True)
    kept = {f"{name}.{end}" for name in ("figure-7", "theorem-2", "theorem-3") for end in ("json", "png")}
    assert {path.name for path in (tmp_path / "claims").iterdir()} == kept | {"mine.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["claims"]
    with pytest.raises(ValueError, match=r"only must be one of 'theorem-2', .* did you mean 'theorem-3'"):
        theorems.study(tmp_path, only=("theorem3",))


def test_the_momentum_of_the_mean_is_found_in_runs():
    """Runs whose mean is known: momentum 0.6, and noise of its own in each."""
    rng, x = np.random.default_rng(0), theory.mean_iterates(theory.ExponentialQueue(4), 0.3, 30)
    runs = x + 0.05 * rng.standard_normal((2000, len(x)))
    value, low, high = momentum_of_the_mean(runs, 0.3, rng)
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
