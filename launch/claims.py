"""Keeps the claims in results/ and their table in the README.

    python launch/claims.py --from=runs/theory    # copies the claims and figures of a study, writes the table
    python launch/claims.py                       # writes the table anew
    python launch/claims.py --check               # only says what is missing or out of date; exit status 1

What is in results/ is replaced with --overwrite only.
"""

import pathlib

from absl import flags

from asyncflax.errors import RunError
from asyncflax.lab import claims
from asyncflax.train import launcher

SOURCE = flags.DEFINE_string("from", None, "the folder of a study; its claims/ are copied into results/")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace claims and figures that are in results/ already")
CHECK = flags.DEFINE_bool("check", False, "write nothing; exit with 1 if something is missing or out of date")
ROOT = flags.DEFINE_string("root", str(pathlib.Path(__file__).parents[1]), "the folder with README.md and results/")


def main() -> None:
    """Collects, writes the table, and says what is wrong."""
    readme, results = pathlib.Path(ROOT.value, "README.md"), pathlib.Path(ROOT.value, "results")
    if CHECK.value and SOURCE.value:
        raise RunError("--check writes nothing, --from copies; take one of them.")
    if not CHECK.value:
        try:
            if SOURCE.value:
                copied = claims.collect(pathlib.Path(SOURCE.value, "claims"), results, overwrite=OVERWRITE.value)
                print(f"copied {len(copied)} claims: {', '.join(claim.name for claim in copied)}")
            claims.write_table(readme, results)
        except (OSError, ValueError) as error:
            raise RunError(str(error).replace("overwrite=True", "--overwrite")) from error
    wrong = claims.faults(readme, results)
    if wrong:
        raise RunError("\n       ".join(wrong))
    print(f"{len(claims.load_all(results))} claims in results/, and {readme.name} has their table")


if __name__ == "__main__":
    launcher.launch(main)
