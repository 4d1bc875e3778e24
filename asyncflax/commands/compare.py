r"""Compares methods on the same traces, data and initial weights, and draws the figures.

    asyncflax compare --config=dana_table:digits --workdir=runs/dana-digits
    asyncflax compare --config=dana_table:digits --workdir=runs/mine --config.num_workers=16 \
        --config.methods='asgd, dana_zero, gentle=dana_zero(momentum=0.5)'

Every field of asyncflax.lab.compare.CompareConfig is a flag, and so is every field of `TrainConfig`, as
--config.train.FIELD. The same command resumes an interrupted comparison. Each of the config's `orders` is tested and
becomes a claim in WORKDIR/claims, which `asyncflax claims --from=WORKDIR` collects; once the comparison is complete,
this needs no further training.
"""

from absl import flags

import asyncflax
from asyncflax.commands._program import command, program
from asyncflax.lab.compare import CompareConfig, draw_comparison, run_comparison
from asyncflax.train import launcher

CONFIG = launcher.config_flag(CompareConfig, "dana_table")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the comparison", required=True)
CACHE = flags.DEFINE_string("compilation_cache", None, "folder of the persistent compilation cache")
MINUTES = flags.DEFINE_float("stop_after_minutes", float("inf"), "stop before a tile that would not finish in time")
CITATION = flags.DEFINE_bool("citation", False, "print BibTeX entries of the papers behind all methods")


@program(CompareConfig)
def main() -> None:
    """Trains, draws the figures and prints the table."""
    workdir = WORKDIR.value
    launcher.use_cache(CACHE.value)
    results = run_comparison(CONFIG.value, workdir, stop_after_minutes=MINUTES.value)
    compared = draw_comparison(results, workdir, command=command(workdir))
    print(f"\n{compared.table}\n\nfigures:")
    print("\n".join(f"  {path}" for path in compared.figures))
    if compared.claims:
        print("claims:")
        print("\n".join(f"  {workdir}/claims/{claim.name}.json" for claim in compared.claims))
    if CITATION.value:
        print(f"\n{asyncflax.citation(CONFIG.value)}\n")
    print(f"table: {workdir}/table.md\nresults: {workdir}/results.nc")
