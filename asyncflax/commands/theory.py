"""Verifies the theorems of Mitliagkas et al. 2016 and their consequences, and saves the outcome as claims.

    asyncflax theory --workdir=runs/theory                       # a minute
    asyncflax theory --only=theorem-3,figure-6 --workdir=runs/some
    asyncflax claims --from=runs/theory       # copies the claims into results/, docs/claims.md and the README

Prints the claims; WORKDIR/claims contains a JSON file per claim, and figures.
"""

from absl import flags
from tqdm import tqdm

from asyncflax.commands._program import program
from asyncflax.lab.studies import theorems
from asyncflax.train import launcher

WORKDIR = flags.DEFINE_string("workdir", None, "the folder of the study", required=True)
ONLY = flags.DEFINE_list("only", [], "run only these checks; an unknown name lists all")
QUICK = flags.DEFINE_bool("quick", False, "few cases and runs, wider intervals, for a quick try")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace an earlier study in the folder")


@program(fixable=(OSError, ValueError))
def main() -> None:
    """Runs the checks and prints their claims."""
    bar = lambda checks: tqdm(checks, desc="checks", leave=False, disable=None)
    launcher.refuse_folder("workdir", WORKDIR.value)
    options = {"quick": QUICK.value, "overwrite": OVERWRITE.value, "progress": bar}
    claims = theorems.study(WORKDIR.value, only=tuple(ONLY.value), **options)
    for claim in claims:
        print(f"{claim.source}: {claim.statement}\n    paper: {claim.paper}\n    ours:  {claim.ours}: {claim.verdict}")
    print(f"\n{len(claims)} claims and their figures: {WORKDIR.value}/claims")
