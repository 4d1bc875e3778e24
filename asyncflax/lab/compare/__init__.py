"""Compares methods on the same traces, data orders and initial weights.

`grid` enumerates and validates the cells: methods x service times x numbers of workers x learning rates x seeds. `run`
trains them like a sweep, many at once and resumable. `summary` computes means with intervals, failures, the learning
rate picked by a named rule, and tables. `orders` checks the orders that papers claim. The other functions take the
`results` of `run_comparison`, an `xarray.Dataset`. Needs the extra `train`.

Example:
  >>> import tempfile
  >>> from asyncflax.lab.compare import CompareConfig, draw_comparison, markdown_tables, run_comparison
  >>> from asyncflax.train.config import TrainConfig
  >>> train = TrainConfig(model="Mlp(hidden=8)", num_updates=20, eval_every=10, momentum=0.5)
  >>> config = CompareConfig(train, "asgd, nag_asgd", {"equal": "gamma"}, num_workers=(2, 4), seeds=(0, 1))
  >>> workdir = tempfile.mkdtemp()
  >>> results = run_comparison(config, workdir)  # doctest: +ELLIPSIS
  Comparison(method: 2, service_time: 1, num_workers: 2, seed: 2; 8 cells): 8 to train...
  >>> dict(results.final_accuracy.sizes)
  {'method': 2, 'service_time': 1, 'num_workers': 2, 'seed': 2}
  >>> draw_comparison(results, workdir).table == markdown_tables(results)
  True
  >>> markdown_tables(results).splitlines()[-1]
  '8 trainings, 0 failed: 0 diverged'
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
