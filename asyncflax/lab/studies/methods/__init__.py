"""Studies of single methods and of live workers: one question each, on handwritten digits, CIFAR-10 or a quadratic.

Every public module is a study. Its `DESIGN` fixes everything beforehand, seeds and criterion included; `QUICK` is a
small design for testing; `study` measures and decides. `run_study` writes a folder:

    workdir/run.json          the design and the versions at the start
    workdir/parts/*.npz       measurements; an interrupted study resumes after the last
    workdir/claims/           a JSON file per claim, and the figure

Learning rates are chosen on some seeds and judged once, on others (see `asyncflax.lab.statistics`).
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
from typing import Any

from asyncflax import _check, _style
from asyncflax.errors import RunError
from asyncflax.lab.claims import Claim
from asyncflax.lab.statistics import criterion_digest
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.train.workdir import Workdir

__all__ = ["names", "run_study"]


def names() -> list[str]:
    """The names of the studies.

    Example:
      >>> from asyncflax.lab.studies import methods
      >>> methods.names()
      ['closed_loop', 'constant_delay', 'delay_adaptive', 'live', 'outer_momentum', 'planned_workers', 'stable_rates']
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def run_study(name: str, workdir: str | os.PathLike[str], *, quick: bool = False) -> list[Claim]:
    """Runs or resumes a study; writes its claims and its figure.

    Args:
      name: one of `names`.
      workdir: a new or empty folder, or the folder of the same study.
      quick: whether to run the small design.

    Raises:
      ValueError: `name` is unknown.
      RunError: the folder belongs to another run or is corrupted.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab.studies import methods
      >>> [claim.verdict for claim in methods.run_study("constant_delay", tempfile.mkdtemp(), quick=True)]
      ['seen', 'seen']
    """
    _check.choice("name", name, names())
    module = importlib.import_module(f"{__name__}.{name}")
    design = module.QUICK if _check.boolean("quick", quick) else module.DESIGN
    slug = name.replace("_", "-")
    try:
        folder = Workdir(workdir, design)
        with folder.owned():
            folder.begin()
            parts = Parts(folder.path / "parts", folder.began["sha256"])
            facts, figure = module.study(design, parts)
            made = {
                "criterion": criterion(design),
                "command": f"asyncflax study --name={name} --workdir=runs/{slug}" + " --quick" * quick,
                "cpu_minutes": parts.cpu_minutes,
                "figure": f"{slug}.png",
            }
            claims = [Claim(**fact, **made) for fact in facts]
            for claim in claims:
                claim.save(folder.path / "claims")
            _style.save(figure, folder.path / "claims" / f"{slug}.png")
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from error
    return claims


def criterion(design: Any) -> str:
    """The digest of a design, see `statistics.criterion_digest`; '' if no seeds judge."""
    judging = getattr(getattr(design, "race", design), "judging", ())
    return criterion_digest(design, judging) if judging else ""
