"""Methods compared: the same traces, the same data in the same order and the same initial weights for all of them.

`grid` says which trainings there are: methods x service times x numbers of workers x learning rates x seeds, all
checked before anything is traced; `run` trains them as a sweep does, many at once and resumable; `summary` reads the
results: means with intervals, failures counted, the learning rate picked by a named rule, a table; `orders` checks the
orders that papers claim. The figures are in `compare.figures`. Needs the extra `train`.
"""

from asyncflax.lab.compare.grid import CompareConfig, Comparison, criteria
from asyncflax.lab.compare.orders import check_orders, parse_orders
from asyncflax.lab.compare.run import Compared, draw_comparison, run_comparison
from asyncflax.lab.compare.summary import RULES, markdown_tables, summarize

__all__ = [
    "RULES",
    "CompareConfig",
    "Compared",
    "Comparison",
    "check_orders",
    "criteria",
    "draw_comparison",
    "markdown_tables",
    "parse_orders",
    "run_comparison",
    "summarize",
]
