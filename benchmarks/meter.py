"""The cost of the momentum meter: compiled program and wall time with and without it, and one estimate on the host.

python benchmarks/meter.py
"""

import argparse
import statistics
import time

import jax
import numpy as np

import asyncflax
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_experiment, make_meter


def main() -> None:
    """Alternates blocks of events with and without the meter; prints medians of the ratios."""
    parser = argparse.ArgumentParser(description="What the momentum meter costs.")
    parser.add_argument("--alternations", type=int, default=40)
    args = parser.parse_args()
    changes = {"log_every": 50, "num_updates": 50 * args.alternations, "eval_every": 10**6, "checkpoint_every": 10**6}
    experiment = make_experiment(TrainConfig(num_workers=8, momentum=0.3, learning_rate=0.2, **changes))
    watched, meter = make_meter(experiment)
    functions = {"without": experiment.gradient_fn, "with": watched}
    states, costs, seconds, readouts = {}, {}, {name: [] for name in functions}, []
    for name, function in functions.items():
        states[name] = asyncflax.init_run(experiment.algorithm, experiment.params, experiment.plan, key=experiment.key)
        step = jax.jit(lambda f, s, c, b: asyncflax.run_chunk(experiment.algorithm, f, s, c, b))
        lowered = step.lower(function, states[name], experiment.plan[0], experiment.batches(experiment.plan[0]))
        costs[name] = lowered.compile().cost_analysis()
    for chunk in experiment.plan:
        batches = experiment.batches(chunk)
        for name, function in functions.items():
            began = time.perf_counter()
            states[name], out = asyncflax.run_chunk(experiment.algorithm, function, states[name], chunk, batches)
            jax.block_until_ready(out)
            seconds[name].append(time.perf_counter() - began)
            if name == "with":
                readouts.append(jax.tree.map(np.asarray, out.aux["meter"]))
    for what in ("flops", "bytes accessed"):
        print(f"{what} of an event: {costs['with'][what] / costs['without'][what]:.4f} of those without the meter")
    ratios = [a / b for a, b in zip(seconds["with"][2:], seconds["without"][2:], strict=True)]
    quartiles = ", ".join(f"{q:.3f}" for q in statistics.quantiles(ratios, n=4))
    print(f"time: quartiles of the ratio {quartiles}; an event {statistics.median(seconds['without']) * 20:.3f} ms")
    host = {"add": [], "estimate": []}
    for chunk, readout in zip(experiment.plan, readouts, strict=True):
        began = time.perf_counter()
        meter.add(experiment.trace.read_version[chunk.events], readout)
        added = time.perf_counter()
        meter.estimate()
        host["add"].append(added - began)
        host["estimate"].append(time.perf_counter() - added)
    add, estimate = statistics.median(host["add"]), max(host["estimate"])
    print(f"host: add {add * 1e3:.3f} ms, estimate {estimate * 1e3:.1f} ms at most")


if __name__ == "__main__":
    main()
