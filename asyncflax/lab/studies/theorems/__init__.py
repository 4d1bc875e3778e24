"""The theorems of Mitliagkas et al. 2016 (arXiv:1605.09774) and their consequences, checked and kept as claims.

Each check compares `asyncflax.theory` with something independent of it: sums over all orders in which workers can
deliver, simulated queues, recursions run forward, points of the paper's figures. It returns the fields of claims and a
figure. `asyncflax theory` runs all checks.

Tolerances are the same for all: an identity holds to rounding, a momentum to 0.005, a point of a published figure to
2 % of the range of its points. Claims state any exception.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from asyncflax import _check, _style
from asyncflax.lab.claims import Claim, cpu_minutes
from asyncflax.lab.studies.theorems import identities, published, queueing, stability
from asyncflax.lab.studies.theorems._facts import Found, Size

__all__ = ["study"]

_FULL = Size(200, runs=4000, seeds=50, workers=(1, 2, 3, 4, 5, 6, 8, 12, 16), targets=(0.96, 0.99), between=3)
_QUICK = Size(10, runs=200, seeds=6, workers=(1, 4, 5, 6), targets=(), between=1)
_CHECKS: dict[str, Callable[[Size], Found]] = {
    "theorem-2": identities.theorem_2,
    "theorem-3": identities.theorem_3,
    "theorem-5": queueing.theorem_5,
    "theorems-6-and-7": identities.theorems_6_and_7,
    "staleness": queueing.staleness_of_queues,
    "stability": stability.stability,
    "measured-momentum": queueing.measured_momentum,
    "figure-2": published.figure_2,
    "figure-6": published.figure_6,
    "figure-7": published.figure_7,
}


def study(
    workdir: str | os.PathLike[str],
    *,
    only: tuple[str, ...] = (),
    quick: bool = False,
    overwrite: bool = False,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> list[Claim]:
    """Runs the checks and writes their claims and figures into `workdir`/claims, all or none.

    Args:
      workdir: the folder of the study, created if missing.
      only: the names of checks, such as ('theorem-3', 'figure-6'); () runs all.
      quick: whether to run fewer cases, with wider intervals.
      overwrite: whether to replace the claims and figures of an earlier study.
      progress: the function that wraps the list of checks, such as tqdm.

    Returns:
      The claims, in the order of the checks; the command and the CPU minutes of each are those of its check alone.

    Raises:
      ValueError: a check is unknown.
      FileExistsError: the folder already has claims; nothing is computed.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab.studies import theorems
      >>> [claim.verdict for claim in theorems.study(tempfile.mkdtemp(), only=("theorem-3",), quick=True)]
      ['seen']
    """
    folder, quick = _check.path("workdir", workdir) / "claims", _check.boolean("quick", quick)
    overwrite = _check.boolean("overwrite", overwrite)
    _check.function("progress", progress, ", such as tqdm")
    if not isinstance(only, tuple | list):
        raise TypeError(f"only must be a tuple of names such as ('theorem-3',), got {_check.shown(only)}.")
    for name in only:
        _check.choice("only", name, tuple(_CHECKS))
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds an earlier study; pass overwrite=True to replace it.")
    part, start, claims = folder.with_name("claims.part"), cpu_minutes(), []
    shutil.rmtree(part, ignore_errors=True)  # of an interrupted study
    part.mkdir(parents=True)
    for name in progress([name for name in _CHECKS if name in only or not only]):
        before = cpu_minutes()
        facts, figure = _CHECKS[name](_QUICK if quick else _FULL)
        _style.save(figure, part / f"{name}.png")
        about = {
            "command": f"asyncflax theory --only={name}{' --quick' * quick} --workdir=runs/{name}",
            "cpu_minutes": round(start + cpu_minutes() - before, 3),
            "figure": f"{name}.png",
        }
        claims += [Claim(**fact, **about) for fact in facts]
    for claim in claims:
        claim.save(part)
    if folder.is_dir():
        for file in part.iterdir():
            file.replace(folder / file.name)
        part.rmdir()
    else:
        part.rename(folder)
    return claims
