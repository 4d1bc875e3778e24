"""Keeps the claims in results/, and their tables in README.md (a few) and docs/claims.md (all).

    asyncflax claims --from=runs/theory    # copies the claims and figures of a study, writes the tables
    asyncflax claims                       # writes the tables
    asyncflax claims --check               # writes nothing; exit status 1 if something is missing or out of date

What is in results/ is replaced with --overwrite only. The README's claims are named in the comment above its table:
<!-- claims: NAME, NAME -->.
"""

import pathlib

from absl import flags

from asyncflax.errors import RunError
from asyncflax.lab import claims
from asyncflax.train import launcher

SOURCE = flags.DEFINE_string("from", None, "the folder of a study; its claims/ are copied into results/")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace claims and figures that are in results/ already")
CHECK = flags.DEFINE_bool("check", False, "write nothing; exit with 1 if something is missing or out of date")
ROOT = flags.DEFINE_string("root", ".", "the folder with README.md, docs/, results/")


def main() -> None:
    """Collects, writes the tables, and reports what is wrong."""
    root = pathlib.Path(ROOT.value)
    documents, results = [root / name for name in claims.DOCUMENTS], root / "results"
    if CHECK.value and SOURCE.value:
        raise RunError("--check writes nothing, --from copies; take one of them.")
    if not CHECK.value:
        try:
            if SOURCE.value:
                copied = claims.collect(pathlib.Path(SOURCE.value, "claims"), results, overwrite=OVERWRITE.value)
                print(f"copied {len(copied)} claims: {', '.join(claim.name for claim in copied)}")
            claims.write_tables(documents, results)
        except (OSError, ValueError) as error:
            raise RunError(str(error).replace("overwrite=True", "--overwrite")) from error
    wrong = claims.faults(documents, results)
    if wrong:
        raise RunError("\n       ".join(wrong))
    print(f"{len(claims.load_all(results))} claims in results/, with tables in {' and '.join(claims.DOCUMENTS)}")


def run() -> None:
    """Parses the flags and runs the command."""
    launcher.launch(main, needs_device=False)
