"""Runs a study of a single method or of live workers and saves its outcome as claims.

    asyncflax study --name=outer_momentum --workdir=runs/outer-momentum
    asyncflax claims --from=runs/outer-momentum    # copies the claims into results/, docs/claims.md and the README

stable_rates measures the largest stable learning rate of each method with 8 to 64 workers (about ten CPU minutes);
closed_loop compares closed-loop with fixed momentum; constant_delay tests whether learning rates must scale as 1 / tau
and momentum must be shifted; delay_adaptive, whether delay-adaptive steps help against stragglers; outer_momentum,
whether momentum at the server hurts asynchronous local SGD; planned_workers, whether the planner recommends the right
number of workers, and live, whether a queue of measured service times predicts a live run (both need CIFAR-10). The
same command resumes an interrupted study. Prints the claims; WORKDIR/claims has a JSON file per claim, and a figure.
"""

from absl import flags

from asyncflax.commands._program import program
from asyncflax.lab.studies import methods
from asyncflax.train import launcher

NAME = flags.DEFINE_enum("name", None, methods.names(), "the study", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "the folder of the study", required=True)
QUICK = flags.DEFINE_bool("quick", False, "a small design, for a quick try")


@program()
def main() -> None:
    """Runs the study and prints its claims."""
    launcher.refuse_folder("workdir", WORKDIR.value)
    for claim in methods.run_study(NAME.value, WORKDIR.value, quick=QUICK.value):
        print(f"{claim.statement}\n    paper: {claim.paper}\n    ours:  {claim.ours}\n    {claim.verdict}")
    print(f"\nclaims and their figure: {WORKDIR.value}/claims")
