"""The rules by which all experiments decide claims, and the intervals of their results.

- Hyperparameters are chosen on seeds A and judged once on other seeds B (`check_seeds`), at least `JUDGING_SEEDS` of
  them. Config, criterion and equivalence bound are committed beforehand, as a digest (`criterion_digest`).
- For each seed the arms share trace, data order and initial weights. Tests use the differences within seeds.
- The criterion is a loss or an accuracy (`decide_difference`, `decide_order`, `decide_trend`), the number of updates to
  a fixed target (`decide_updates`), or the location of an optimum (`optimum`). A number that theory predicts is decided
  by its interval (`decide_number`).
- Runs are long enough for momentum to act (`least_updates`).

Arrays have seeds on the first axis. Functions that judge raise ValueError if a value is not finite, or if there are
fewer than two seeds, or fewer than `JUDGING_SEEDS` without an `exception`, the reason why fewer suffice. The `claim` is
that one arm is better ('greater', for updates 'sooner') or that both are 'equal' within the equivalence `bound`.
Intervals and tests are two-sided, at 95 % and 5 %; bootstraps have a fixed `seed`. Examples assume `import numpy as np`
and the names of this package. Needs SciPy.
"""

from asyncflax.lab.statistics.beforehand import (
    JUDGING_SEEDS,
    check_seeds,
    criterion_digest,
    least_updates,
    power,
    smallest_difference,
)
from asyncflax.lab.statistics.intervals import (
    LEVEL,
    VERDICTS,
    Interval,
    decide_number,
    proportion,
    resampled,
    spread,
    student,
)
from asyncflax.lab.statistics.multiple import OrderVerdict, decide_all, decide_order, holm
from asyncflax.lab.statistics.optima import Optimum, optimum, optimum_shift
from asyncflax.lab.statistics.paired import (
    ACCURACY_BOUND,
    RATIO_BOUND,
    Verdict,
    decide_difference,
    decide_trend,
    decide_updates,
    log_updates,
)

__all__ = [
    "ACCURACY_BOUND",
    "JUDGING_SEEDS",
    "LEVEL",
    "RATIO_BOUND",
    "VERDICTS",
    "Interval",
    "Optimum",
    "OrderVerdict",
    "Verdict",
    "check_seeds",
    "criterion_digest",
    "decide_all",
    "decide_difference",
    "decide_number",
    "decide_order",
    "decide_trend",
    "decide_updates",
    "holm",
    "least_updates",
    "log_updates",
    "optimum",
    "optimum_shift",
    "power",
    "proportion",
    "resampled",
    "smallest_difference",
    "spread",
    "student",
]
