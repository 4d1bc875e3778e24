"""Collects claims in results/, updates their tables in README.md and docs/claims.md, and reproduces them.

    asyncflax claims --from=runs/theory    # copies claims and figures of a study, updates the tables
    asyncflax claims                       # updates the tables
    asyncflax claims --check               # writes nothing; exit status 1 if anything is missing or stale
    asyncflax claims --run=quick           # reruns commands of at most five CPU minutes and compares verdicts
    asyncflax claims --run=all --list      # lists what would run

Existing files in results/ are replaced only with --overwrite. A comment above its table names the README's claims:
<!-- claims: NAME, NAME -->.

--run takes quick, all, or names of claims. The commands run from scratch in folders below --folder and leave results/
untouched; rerun the same command to resume. Exit status 1 if a verdict differs or a command fails.
"""

import pathlib
import signal

from absl import flags

from asyncflax.commands._program import program
from asyncflax.errors import RunError
from asyncflax.lab import claims, documents, reproduce
from asyncflax.train import launcher

SOURCE = flags.DEFINE_string("from", None, "folder of a study whose claims/ are copied into results/")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace existing claims and figures in results/")
CHECK = flags.DEFINE_bool("check", False, "write nothing; exit with status 1 if anything is missing or stale")
RUN = flags.DEFINE_list("run", None, "run commands from scratch and compare: quick, all, or names of claims")
LIST = flags.DEFINE_bool("list", False, "with --run: list the commands instead")
FOLDER = flags.DEFINE_string("folder", "runs/claims", "with --run: folder in which the commands run")
ROOT = flags.DEFINE_string("root", ".", "folder that contains README.md, docs/ and results/")


class StoppedError(RunError):
    """Ctrl-C or SIGTERM arrived while commands were running."""

    def __init__(self, number: int):
        super().__init__("stopped; rerun the same command to resume")
        self.exit_status = 128 + number


@program(needs_device=False, fixable=(OSError, ValueError))
def main() -> None:
    """Collects claims, updates the tables and reports problems; or reruns commands."""
    root = pathlib.Path(ROOT.value)
    pages, results = [root / name for name in documents.DOCUMENTS], root / "results"
    chosen = [f"--{flag.name}" for flag in (SOURCE, CHECK, RUN) if flag.value]
    if len(chosen) > 1:
        raise RunError(f"--from, --check and --run exclude each other, got {' and '.join(chosen)}; use one of them.")
    if RUN.value:
        _run(root, claims.load_all(results))
        return
    if SOURCE.value:
        copied = claims.collect(pathlib.Path(SOURCE.value, "claims"), results, overwrite=OVERWRITE.value)
        print(f"copied {len(copied)} claims: {', '.join(claim.name for claim in copied)}")
    if not CHECK.value:
        documents.write_tables(pages, results)
    wrong = documents.faults(pages, results)
    if wrong:
        raise RunError("\n       ".join(wrong))
    print(f"{len(claims.load_all(results))} claims in results/, with tables in {' and '.join(documents.DOCUMENTS)}")


def _run(root: pathlib.Path, kept: list[claims.Claim]) -> None:
    """Runs or lists the commands that --run selects, and compares their claims."""
    launcher.refuse_folder("folder", FOLDER.value)
    try:
        chosen = reproduce.tasks(kept, RUN.value or [], FOLDER.value)
    except ValueError as error:
        raise RunError(str(error).replace("which must", "--run must")) from error
    minutes = sum(task.minutes for task in chosen)
    rows = sum(len(task.claims) for task in chosen)
    print(f"{rows} of {len(kept)} claims by {len(chosen)} commands, about {minutes:.1f} CPU minutes")
    if LIST.value:
        for task in chosen:
            state = " (finished)" if task.is_finished else ""
            print(f"\n{task.command}{state}\n    {', '.join(claim.name for claim in task.claims)}")
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    found = []
    for number, task in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)}: {task.command}", flush=True)
        found += reproduce.outcomes(task, reproduce.run(task, root))
    print(f"\n{reproduce.table(found)}")
    wrong = [one.then.name for one in found if one.fault]
    if wrong:
        raise RunError(f"{len(wrong)} of {len(found)} claims differ from results/: {', '.join(wrong)}.")


def _stop(number: int, frame: object) -> None:
    raise StoppedError(number)
