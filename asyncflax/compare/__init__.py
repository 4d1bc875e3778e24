"""Methods compared: the same traces, the same data in the same order and the same initial weights for all of them.

`grid` says which trainings there are: methods x service times x numbers of workers x learning rates x seeds, all
checked before anything is traced; `run` trains them as a sweep does, many at once and resumable; `summary` reads the
results: means with intervals, failures counted, the learning rate picked by a named rule, a table. The figures are in
`figures.comparison`. Needs the extra `train`.
"""

from asyncflax.compare.grid import CompareConfig, Comparison
from asyncflax.compare.run import Compared, draw_comparison, run_comparison
from asyncflax.compare.summary import RULES, markdown_tables, summarize

__all__ = [
    "RULES",
    "CompareConfig",
    "Compared",
    "Comparison",
    "draw_comparison",
    "markdown_tables",
    "run_comparison",
    "summarize",
]
