"""What every public parameter accepts and refuses: values by kind, how each function is called, and the exceptions.

A parameter's kind follows from its annotation, and where that is `Any` from its name. The kind says beforehand what is
refused, and what means the same as the plain value.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray

import asyncflax
from asyncflax import algorithms, models, queues, staleness, theory
from asyncflax.lab.compare import CompareConfig
from asyncflax.lab.sweep import SweepConfig
from asyncflax.theory import cluster, meter, planner, problems

NAN, INF = float("nan"), float("inf")


class Thing:
    """An object that nobody wants, although it would be a number for who asks it to be one."""

    def __float__(self) -> float:
        return 0.5

    def __repr__(self) -> str:
        return "Thing()"


THING = Thing()


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is refused, and what is the same as a plain value of the kind."""

    refused: tuple[Any, ...]
    same: tuple[Callable[[Any], Any], ...] = ()


_NO_NUMBERS = ("0.5", "1", b"1", True, np.True_, None, THING, 1j, np.datetime64(1, "s"), {}, {1.0}, jnp.array(True))
_NO_INTEGERS = (*_NO_NUMBERS, 2.5, 2.0, NAN, INF, np.array([1, 2]), np.float64(2))
_TOO_LARGE = (2**31, 2**40, 2**64, -(2**40), np.int64(2**40))

KINDS = {
    "int": Kind((*_NO_INTEGERS, [1], *_TOO_LARGE), (np.int64, np.int16, np.array, jnp.int32)),
    "float": Kind(
        (*_NO_NUMBERS, NAN, INF, -INF, 10**400, np.array([0.5, NAN]), ["0.5"], [True], np.float32(NAN)),
        (np.float64, np.float32, np.array, jnp.float32, lambda x: int(x) if x == int(x) else x),
    ),
    "bool": Kind(("False", "True", "", 0, 1, 0.0, None, [], [True], np.array([True]), THING), (np.bool_, jnp.array)),
    "choice": Kind(("", "no such", b"read", None, 0, True, [], ["text"], THING), (str,)),
    "text": Kind((None, 0, True, b"bytes", [], THING), (str,)),
    "path": Kind((0.5, [], THING, None), (pathlib.Path,)),
    "floats": Kind(
        ("0.5", b"1", True, THING, None, 1j, ["0.5"], [True], [NAN], [0.5, INF], [THING], [[0.5], [0.5, 0.5]], {1: 1}),
        (np.array, jnp.asarray),
    ),
    "ints": Kind(
        ("1", b"1", True, THING, None, ["1"], [True], [1.5], [NAN], [[1], [1, 2]], [2**40], [-1], 1.5),
        (np.array, lambda x: list(x) if isinstance(x, tuple | range) else x),
    ),
    "staleness": Kind((*_NO_INTEGERS, *_TOO_LARGE, -1, [1.5]), (np.int64, np.array, staleness.constant)),
    "names": Kind(("text", b"1", 0, True, None, ("no such",), THING)),
    "objects": Kind((0, True, None, THING, "text", b"bytes", ["text"], [THING], [None])),
    "dtype": Kind(("no such", "int32", int, bool, THING, 1.5)),
    "function": Kind((None, 0, True, "text", [], {}, THING)),
    "object": Kind(("text", b"bytes", {"a": 1}, {1.0}, THING, None, 0, [])),
    "tree": Kind(("text", THING, [THING], {"w": "text"}, np.array(["text"]), np.array([THING]))),
    "key": Kind((0, "text", jnp.zeros(2, jnp.uint32), jnp.zeros(3), THING, True, None)),
}  # fmt: skip

# Out of the range that all parameters of a name have.
RANGES: dict[str, tuple[Any, ...]] = {
    name: values
    for names, values in (
        ("num_workers num_updates num_events num_stages width num_slots rounds_per_chunk replicas capacity", (0, -1)),
        ("num_trajectories every window coordinates num_classes num_examples batch_size num_test", (0, -1)),
        ("seed staleness max_staleness low hidden burn_in event crop_pad", (-1, -(2**31))),
        ("momentum explicit initial_momentum", (1.5, -1.5, 1e300)),
        ("learning_rate weight_decay sigma h strength lag update noise", (-1.0, -1e-300)),
        ("mean_square_decay average_decay", (1.0, -0.5, 2.0)),
        ("confidence target_momentum", (0.0, 1.0, -0.5, 2.0)),
        ("share dropout statistics_decay limit implicit mass fixed", (-0.5, 1.5)),
        ("cv machine_cv task_cv slowdown curvature curvature_min scale smoothness constant", (0.0, -1.0)),
        ("initial_learning_rate shape epsilon", (0.0, -1.0)),
    )
    for name in names.split()
}

TEXTS = ("name", "statement", "source", "paper", "ours", "command", "figure", "machine", "folder")

# Of what is annotated as Any.
BY_NAME = {
    **dict.fromkeys(("params", "read_params", "template", "updates", "batches", "tree", "model_state"), "tree"),
    **dict.fromkeys(("grads", "start", "gap", "gradient_rms"), "floats"),
    "accumulator_dtype": "dtype",
    "staleness": "int",
    "read_version": "ints",
}


def kind_of(parameter: inspect.Parameter) -> tuple[str, bool]:
    """The kind of a parameter, '' where its annotation says nothing; and whether it may be None."""
    text = getattr(parameter.annotation, "__name__", None) or str(parameter.annotation)
    types = [part.strip() for part in re.sub(r"\[.*\]", "", text).split("|")]
    first = next((part for part in types if part not in ("None", "jax.Array", "np.ndarray")), "np.ndarray")
    if parameter.name == "key":
        kind = "key"
    elif "os.PathLike" in types:
        kind = "path"
    elif "tuple[str" in text:
        kind = "names"
    elif re.search(r"Sequence\[(Claim|Scenario|Any)", text):
        kind = "objects"
    elif {"Sequence", "Iterable", "tuple"} & {*types}:
        kind = "ints" if "int" in text else "floats"
    elif first == "str":
        kind = "text" if parameter.name in TEXTS else "choice"
    elif first == "Any":
        kind = BY_NAME.get(parameter.name, "")
    else:
        named = {"LearningRate": "float", "Staleness": "staleness", "Callable": "function", "np.ndarray": "floats"}
        kind = first if first in KINDS else named.get(first, "object")
    return kind, "None" in types


# --- How each function is called -------------------------------------------------------------------------------------

QUEUE = queues.exponential()
TRACE = queues.simulate(num_workers=4, num_updates=24, service_time=QUEUE)
LAW = staleness.geometric(3.0)
PLAN = asyncflax.make_plan(TRACE)
KEY = jax.random.key(0)
RING = asyncflax.history.Ring(4)
SGD = algorithms.asgd(0.5)
W = np.arange(3.0)
WALK = np.cumsum(np.random.default_rng(0).normal(size=(40, 2)), axis=0)
SCHEDULE = np.random.default_rng(1).normal(size=(40, 2))
LOSS = jax.value_and_grad(lambda w, batch: jnp.sum((w - batch) ** 2))
BATCHES = np.ones((24, 3))
TX = optax.sgd(0.5)
SHAPES = jax.ShapeDtypeStruct((8, 2), jnp.float32)
FORECAST = planner.make([1, 2], condition_number=1.5)
CLUSTER = cluster.measure(TRACE)
IMAGES = {"image_shape": (8, 8, 1)}
STATE = asyncflax.init_run(SGD, W, PLAN)
SCORE = xarray.DataArray(np.array([[1.0, 2.0, 3.5], [4.0, 3.0, 2.0]]), dims=("momentum", "seed"))
METER = meter.MomentumMeter(learning_rate=0.5)


def _of_methods() -> dict[str, dict[str, Any]]:
    """Every method, with a learning rate and workers."""
    made = {}
    for name in algorithms.__all__:
        if inspect.isfunction(getattr(algorithms, name)) and name != "citation":
            needed = inspect.signature(getattr(algorithms, name)).parameters
            made[f"algorithms.{name}"] = {"learning_rate": 0.5} | (
                {"num_workers": 4} if "num_workers" in needed else {}
            )
    return made


# By name of the function: the arguments of a call that is right. Other parameters have their defaults.
CALLS: dict[str, dict[str, Any]] = _of_methods() | {
    "AsyncAlgorithm": {"init": SGD.init, "update": SGD.update},
    "ModelUpdate.apply": {"self": asyncflax.ModelUpdate(0.5, W), "model_state": W},
    "Plan.chunks_from": {"self": PLAN, "event": 0},
    "Plan.place": {"self": PLAN, "tree": W},
    "Plan.summary": {"self": PLAN, "params": SHAPES, "device_groups": 1, "replicas": 2, "server": "sharded"},
    "Trace": {"worker": [0, 1, 0], "read_version": [0, 0, 1], "time": [1.0, 1.5, 2.0], "num_workers": 2},
    "Trace.from_log": {"log": {"worker": [0, 1], "version": [0, 0]}},
    "Trace.load": {"path": "none"},
    "Trace.prefix": {"self": TRACE, "num_events": 3},
    "Trace.save": {"self": TRACE, "path": "trace.npz", "overwrite": True},
    "from_loss": {"loss_fn": lambda w, batch: jnp.sum(w)},
    "from_optax": {"tx": TX},
    "init_run": {"algorithm": SGD, "params": W, "plan": PLAN},
    "make_mesh": {},
    "make_plan": {"trace": TRACE},
    "method": {"factory": lambda learning_rate: SGD},
    "run": {"algorithm": SGD, "gradient_fn": LOSS, "params": W, "trace": TRACE, "batches": BATCHES},
    "transform_gradients": {"tx": TX, "algorithm": SGD},
    "transform_updates": {"tx": TX, "algorithm": SGD},
    "live.Server": {"algorithm": SGD, "params": W, "num_workers": 2, "num_updates": 3},
    "history.Ring": {"capacity": 3},
    "history.Ring.check": {"self": RING, "law": staleness.constant(2)},
    "history.Ring.empty": {"self": RING, "template": W},
    "history.Ring.init": {"self": RING, "params": W},
    "history.Ring.push": {"self": RING, "state": RING.init(W), "params": W},
    "history.Ring.read": {"self": RING, "state": RING.init(W), "staleness": 1},
    "history.Ring.sample": {"self": RING, "state": RING.init(W), "law": staleness.constant(2), "key": KEY},
    "local.local_sgd": {"gradient_fn": LOSS, "optimizer": TX, "steps": 2},
    "local.steps_by_speed": {"speeds": [4.0, 2.0], "steps": 4},
    "metrics.gap": {"params": W, "read_params": W},
    "metrics.rms": {"tree": W},
    "queues.ServiceTime": {"name": "own", "machine": lambda rng, m: np.ones(m), "task": lambda rng, n: np.ones(n)},
    "queues.ServiceTime.task_of": {"self": QUEUE, "worker": 1},
    "queues.ServiceTime.staleness": {"self": QUEUE, "num_workers": 4},
    "queues.barrier": {"num_workers": 4, "num_updates": 9, "service_time": QUEUE},
    "queues.deterministic": {},
    "queues.exponential": {},
    "queues.gamma": {"cv": 0.5},
    "queues.heterogeneous_gamma": {},
    "queues.lognormal": {},
    "queues.measured": {"trace": TRACE},
    "queues.pareto": {},
    "queues.simulate": {"num_workers": 4, "num_updates": 9, "service_time": QUEUE},
    "queues.stragglers": {},
    "staleness.StalenessLaw": {"name": "own", "table": [0.5, 0.5], "mean": 0.5},
    "staleness.StalenessLaw.bound": {"self": LAW, "mass": 0.5},
    "staleness.StalenessLaw.pmf": {"self": LAW, "staleness": 3},
    "staleness.StalenessLaw.sample": {"self": LAW, "key": KEY, "shape": (3,)},
    "staleness.StalenessLaw.tail": {"self": LAW, "staleness": 3},
    "staleness.StalenessLaw.trace": {"self": LAW, "num_updates": 9},
    "staleness.constant": {"staleness": 3},
    "staleness.empirical": {"pmf": [0.5, 0.25, 0.25]},
    "staleness.geometric": {"mean": 3.0},
    "staleness.measured": {"trace": TRACE},
    "staleness.negative_binomial": {"mean": 3.0, "shape": 2.0},
    "staleness.pipeline": {"num_stages": 3},
    "staleness.poisson": {"mean": 3.0},
    "staleness.uniform": {"low": 1, "high": 3},
    "transforms.compensate_delay": {"strength": 0.5},
    "transforms.average_params": {"decay": 0.9},
    "transforms.decay_weights": {"weight_decay": 0.5},
    "transforms.delay_gradients": {"staleness": 2},
    "transforms.explicit_momentum": {"momentum": 0.5},
    "transforms.per_worker": {"tx": TX, "num_workers": 4},
    "transforms.read_stale_params": {"opt_state": asyncflax.transforms.store_versions(2).init(W), "params": W},
    "transforms.scale_by_staleness": {"fn": lambda tau: 1 / (1 + tau)},
    "transforms.store_versions": {"staleness": 2},
    "transforms.summed_momentum": {"momentum": 0.5, "num_workers": 4},
    "transforms.with_delay": {"staleness": 2, "inner": TX},
    "algorithms.parts.compensation": {
        "strength": 0.5, "curvature": "squared", "mean_square": "none", "mean_square_decay": 0.5, "num_workers": 4
    },
    "algorithms.parts.decayed": {"weight_decay": 0.5, "decay_at": "read"},
    "algorithms.parts.step": {"learning_rate": 0.5},
    "algorithms.parts.with_step": {"learning_rate": 0.5, "velocity": TX, "form": "inside"},
    "engine.best_width": {"trace": TRACE, "device_groups": 2},
    "engine.forecast": {"trace": TRACE, "width": 2},
    "engine.memory": {"params": SHAPES, "width": 2, "num_slots": 3},
    "engine.traffic": {"params": SHAPES, "width": 2, "device_groups": 2},
    "engine.placement.Placement": {},
    "theory.ExponentialQueue": {"num_workers": 4},
    "theory.best_hyper_parameters": {"staleness": 1, "condition_number": 4.0, "momentum": 0.0},
    "theory.compensating_momentum": {"target": 0.5, "num_workers": 4},
    "theory.estimate_momentum": {"params": WALK, "grads": SCHEDULE, "learning_rate": 0.5},
    "theory.implicit_momentum": {"num_workers": 4},
    "theory.mean_iterates": {"staleness": 2, "h": 0.25, "num_updates": 9},
    "theory.mean_radius": {"staleness": 2, "h": 0.25},
    "theory.mean_square_iterates": {"staleness": 2, "h": 0.25, "num_updates": 9},
    "theory.mean_square_limit": {"staleness": 2},
    "theory.mean_square_radius": {"staleness": 2, "h": 0.25},
    "theory.momentum_kernel": {"pmf": [0.5, 0.25, 0.25]},
    "theory.queue_mean_matrix": {"num_workers": 4, "h": 0.25},
    "theory.queue_mean_square_matrix": {"num_workers": 4, "h": 0.25},
    "theory.stability_limit": {"staleness": 2},
    "theory.stationary_variance": {"staleness": 2, "h": 0.25},
    "theory.total_momentum_operator": {"explicit": 0.5, "implicit": 0.5},
    "theory.turning_point": {"target": 0.5},
    "theory.cluster.files": {"folder": "plan"},
    "theory.cluster.measure": {"trace": TRACE},
    "theory.cluster.table": {"cluster": CLUSTER, "scenarios": []},
    "theory.cluster.what_if": {"cluster": CLUSTER, "num_workers": [1, 2]},
    "theory.Spectrum.checked": {"self": theory.Spectrum([1.0], [1.0])},
    "theory.Spectrum.even": {"condition_number": 4.0},
    "theory.descent.expected_losses": {
        "spectrum": theory.Spectrum.even(4.0), "along": TRACE, "num_updates": 4, "step_size": 0.5
    },
    "theory.descent.soonest": {
        "spectrum": theory.Spectrum.even(4.0), "along": TRACE, "target": 0.5, "max_updates": 500
    },
    "theory.largest_curvature": {"loss_fn": jnp.sum, "params": W},
    "theory.meter.MomentumMeter": {"learning_rate": 0.5},
    "theory.meter.watch": {"gradient_fn": LOSS, "params": W},
    "theory.planner.condition_number_of": {"target_momentum": 0.5},
    "theory.planner.files": {"folder": "plan"},
    "theory.planner.make": {"num_workers": [1, 2], "condition_number": 1.5},
    "theory.planner.save": {"plan": FORECAST, "folder": "plan", "overwrite": True},
    "theory.problems.NoisyQuadratic": {},
    "theory.problems.NoisyQuadratic.ensemble": {
        "self": problems.NoisyQuadratic(), "staleness": 2, "learning_rate": 0.5, "num_updates": 4, "num_trajectories": 2
    },
    "theory.problems.StreamingPca": {},
    "theory.problems.StreamingPca.axis": {"self": problems.StreamingPca(), "index": 1},
    "theory.problems.StreamingPca.ensemble": {
        "self": problems.StreamingPca(), "staleness": 2, "learning_rate": 0.5, "num_updates": 4, "num_trajectories": 2
    },
    "theory.streaming_pca.Sde.variance": {"self": theory.streaming_pca.sde([2.0, 1.0]), "time": 1.0},
    "theory.streaming_pca.delay_margin": {"momentum": 0.5, "h": 0.25},
    "theory.streaming_pca.ode": {"start": [0.5, 1.0], "eigenvalues": [2.0, 1.0], "time": 1.0},
    "theory.streaming_pca.phases": {"eigenvalues": [2.0, 1.0], "learning_rate": 2.0**-12, "accuracy": 0.0625},
    "theory.streaming_pca.sde": {"eigenvalues": [2.0, 1.0]},
    "theory.streaming_pca.tolerable_delay": {"momentum": 0.5, "learning_rate": 0.25, "regime": "ode", "gamma": 0.5},
    "models.CaffeNet": {"image_shape": (40, 40, 1), "num_classes": 2},
    "models.Cifar10Quick": {},
    "models.Mlp": IMAGES,
    "models.ResNet20": IMAGES,
    "models.ResNet50": {"image_shape": (8, 8, 1), "num_classes": 2},
    "models.SmallCnn": IMAGES,
    "models.WideResNet16x4": IMAGES,
    "algorithms.parts.ahead": {"params": W, "updates": W, "steps": 2.0},
    "data.augment": {"key": KEY, "images": jnp.ones((2, 8, 8, 1), jnp.float32)},
    "data.batch_rows": {"num_examples": 10, "batch_size": 2, "events": range(4)},
    "data.digits": {},
    "lab.claims.Claim": {
        "name": "own", "statement": "It holds.", "source": "no paper", "paper": "none", "ours": "0.5", "value": 0.5,
        "interval": (0.25, 0.75), "seeds": 3, "command": "python launch/theory.py"
    },
    "lab.documents.markdown_page": {"claims": []},
    "lab.documents.markdown_table": {"claims": []},
    "lab.sweep.best_cells": {"score": SCORE},
    "lab.sweep.paired_change": {"new": SCORE[0], "old": SCORE[1]},
    "lab.sweep.run_sweep": {"config": SweepConfig(), "workdir": "run"},
    "lab.compare.run_comparison": {"config": CompareConfig(), "workdir": "run"},
    "lab.studies.theorems.study": {"workdir": "study"},
    "metrics.normalised_gap": {"gap": W, "gradient_rms": W},
    "models.initialized": {"network": models.Mlp, "key": KEY, "image_shape": (8, 8, 1)},
    "run_chunk": {
        "algorithm": SGD, "gradient_fn": LOSS, "state": STATE, "chunk": PLAN[0], "batches": BATCHES
    },
    "theory.meter.MomentumMeter.add": {
        "self": METER, "read_version": np.arange(1, 41), "readout": meter.Readout(WALK, SCHEDULE)
    },
    "theory.Spectrum.measured": {
        "losses": SCHEDULE[:, 0], "readout": meter.Readout(WALK, SCHEDULE), "learning_rate": 0.5,
        "curvature_max": 1.0
    },
    "theory.planner.advice": {"plan": FORECAST},
    "theory.planner.recommendation": {"plan": FORECAST},
    "theory.planner.table": {"plan": FORECAST},
    "theory.problems.Ensemble.replay": {
        "self": problems.NoisyQuadratic().ensemble(2, learning_rate=0.5, num_updates=4, num_trajectories=2),
        "trajectory": 1,
    },
    "train.asynchrony.barrier": {"num_workers": 4, "num_updates": 9, "seed": 0},
    "train.asynchrony.law": {"num_workers": 4, "num_updates": 9, "seed": 0, "distribution": LAW},
    "train.asynchrony.queue": {"num_workers": 4, "num_updates": 9, "seed": 0},
}  # fmt: skip

# Values for parameters whose default is None, or says nothing; with what else they need.
GIVEN: dict[tuple[str, str], dict[str, Any]] = {
    ("*", "max_staleness"): {"max_staleness": 5},
    ("Trace", "ticket"): {"ticket": [1, 0, 5]},
    ("Trace.from_log", "columns"): {"columns": {"time": None}},
    ("Trace", "begun"): {"begun": [0.0, 0.5, 1.0]},
    ("algorithms.lwp", "lag"): {"lag": 2.0},
    ("algorithms.shifted_momentum", "max_staleness"): {"max_staleness": 5, "velocity": "version"},
    ("make_plan", "num_slots"): {"num_slots": 30},
    ("make_plan", "cuts"): {"cuts": [4, 8]},
    ("make_plan", "rounds_per_chunk"): {"rounds_per_chunk": 3},
    ("AsyncAlgorithm", "num_workers"): {"num_workers": 4},
    ("from_optax", "num_workers"): {"num_workers": 4},
    ("algorithms.dc_asgd", "num_workers"): {"num_workers": 4},
    ("engine.best_width", "widths"): {"widths": [2, 4]},
    ("queues.simulate", "policy"): {"policy": "restart", "max_staleness": 3},
    ("train.asynchrony.queue", "policy"): {"policy": "restart", "max_staleness": 3},
    ("queues.simulate", "server_time"): {"server_time": QUEUE},
    ("queues.simulate", "link_time"): {"link_time": QUEUE},
    ("queues.stragglers", "num_slow"): {"num_slow": 2},
    ("queues.stragglers", "share"): {"share": 0.5},
    ("transforms.compensate_delay", "mean_square_decay"): {"mean_square_decay": 0.5},
    ("theory.planner.make", "target_momentum"): {"target_momentum": 0.25, "condition_number": None},
    ("theory.planner.make", "curvature_min"): {"curvature_min": 0.5, "curvature_max": 1.0, "condition_number": None},
    ("theory.planner.make", "curvature_max"): {"curvature_max": 1.0},
    ("theory.cluster.measure", "server_seconds"): {"server_seconds": 0.03125},
    ("theory.planner.make", "noise"): {"noise": 0.5},
    ("theory.planner.make", "update_seconds"): {"update_seconds": [1.0, 0.75]},
    ("theory.problems.NoisyQuadratic.ensemble", "every"): {"every": 2},
    ("theory.problems.StreamingPca.ensemble", "every"): {"every": 2},
}


_NUMPY = (
    "queues.barrier", "queues.simulate", "train.asynchrony.barrier", "train.asynchrony.law", "train.asynchrony.queue",
    "theory.meter.watch", "data.batch_rows", "staleness.StalenessLaw.trace"
)  # fmt: skip
_JAX = (
    "transforms.delay_gradients", "transforms.store_versions", "transforms.with_delay",
    "theory.problems.NoisyQuadratic.ensemble", "theory.problems.StreamingPca.ensemble"
)  # fmt: skip

# What a parameter takes although its kind does not, and why.
EXCEPTIONS: dict[tuple[str, str], tuple[tuple[Any, ...], str]] = {
    **{(name, "seed"): (_TOO_LARGE[:3] + _TOO_LARGE[4:], "NumPy takes a seed of any size") for name in _NUMPY},
    **{(name, "seed"): ((2**31,), "JAX keeps 32 bits") for name in _JAX},
    **{
        ("metrics.normalised_gap", name): (([NAN], [0.5, INF]), "a run may have diverged")
        for name in ("gap", "gradient_rms")
    },
    ("Trace", "num_workers"): ((None,), "its default, the largest id + 1"),
    ("Trace", "ticket"): ((None,), "its default, the index of the event"),
    ("data.batch_rows", "events"): (([],), "no rows"),
    ("staleness.StalenessLaw.pmf", "staleness"): (([2**40], [-1]), "of what cannot be, the probability is 0"),
    ("staleness.StalenessLaw.tail", "staleness"): ((-1,), "P(tau > -1) is everything"),
    ("theory.streaming_pca.Sde.variance", "time"): ((INF,), "the stationary variance"),
    **{
        ("theory.problems.NoisyQuadratic", name): (
            (None, THING, np.array([0.5, NAN]), jnp.array(True)), "JAX puts arrays and placeholders of its own there"
        )
        for name in ("curvature", "noise")
    },
    ("theory.problems.StreamingPca", "eigenvalues"): ((None, THING), "JAX puts placeholders of its own there"),
    ("Plan.place", "tree"): (KINDS["tree"].refused, "what is no array stays as it is"),
    ("lab.claims.Claim", "figure"): (("",), "there is none"),
    ("lab.claims.Claim", "criterion"): (("",), "nothing was chosen"),
    ("lab.claims.Claim", "confidence"): ((1.0,), "of what was looked at in all cases"),
    ("lab.sweep.run_sweep", "stop_after_minutes"): ((INF,), "the default"),
    ("lab.compare.run_comparison", "stop_after_minutes"): ((INF,), "the default"),
    ("theory.problems.NoisyQuadratic.ensemble", "start"): ((None,), "1"),
    ("theory.problems.StreamingPca.ensemble", "start"): ((None,), "the saddle"),
    ("lab.sweep.run_sweep", "workdir"): (KINDS["path"].refused, "pathlib says it"),
    ("lab.compare.run_comparison", "workdir"): (KINDS["path"].refused, "pathlib says it"),
    ("Trace.load", "path"): (KINDS["path"].refused, "pathlib says it"),
}  # fmt: skip

# Of which no other spelling is the same: why.
ONE_SPELLING = {
    ("theory.problems.NoisyQuadratic.ensemble", "staleness"): "the result keeps the staleness itself",
    ("theory.problems.StreamingPca.ensemble", "staleness"): "the result keeps the staleness itself",
    ("theory.problems.NoisyQuadratic.ensemble", "start"): "the default is 1",
    ("theory.problems.StreamingPca.ensemble", "start"): "the default is the saddle",
    ("theory.problems.StreamingPca", "eigenvalues"): "a tuple, which is a PyTree",
    ("queues.measured", "trace"): "a trace, or the path of one",
    ("staleness.measured", "trace"): "a trace, or the path of one",
    ("queues.ServiceTime", "task"): "a function, or a tuple of them",
    ("lab.claims.Claim", "interval"): "a pair",
    ("lab.claims.Claim", "machine"): "its default is this machine",
    ("theory.meter.MomentumMeter.add", "read_version"): "a meter remembers",
}

# What a message calls a parameter.
ALIASES = {("history.Ring.empty", "template"): "params", ("staleness.StalenessLaw", "table"): "table|pmf"}

# Called with what is refused alone: they take long, or need what is not here.
REFUSED_ONLY = {
    "run_chunk", "Trace.load", "lab.sweep.run_sweep", "lab.compare.run_comparison", "lab.studies.theorems.study"
}  # fmt: skip
# Seconds of compilation for each value that is accepted.
SLOW = {"models.CaffeNet", "models.ResNet20", "models.ResNet50", "models.WideResNet16x4", "theory.planner.make"}

# Public, and not called here, by the beginning of the name.
NOT_CALLED = {
    "figures, whose axes and figures are matplotlib's": ("plots.", "engine.draw", "theory.planner.draw",
        "theory.cluster.draw", "theory.cluster.save", "lab.figures.",
        "lab.compare.figures.", "lab.compare.draw_comparison"),
    "records that the library makes": ("Chunk", "Plan", "engine.placement.Placement.", "theory.problems.Ensemble"),
    "errors": ("errors.", "train.RunInterruptedError", "lab.sweep.SweepUnfinishedError"),
    "they take whatever there is": ("AsyncAlgorithm.view", "citation", "models.functional",
        "models.count_parameters", "transforms.partition_spec"),
    "gradients of problems, which the engine calls": ("theory.problems.NoisyQuadratic.",
        "theory.problems.StreamingPca."),
    "files, in the tests of each reader": ("data.cifar", "data.imagenet", "data.Records", "data.pipeline.",
        "lab.claims.", "lab.documents.", "lab.reproduce.", "train.checkpoint.", "train.records.", "train.workdir.",
        "train.writers.",
        "train.asynchrony.recorded"),
    "jobs and threads, in tests/live": ("live.Packed", "live.packed.", "live.Server.", "live.Threads", "live.gradient",
        "live.run_threads", "train.execution."),
    "processes and launchers, in tests/train and test_launch": ("train.distributed.", "train.launcher."),
    "configs, whose fields are looked at below": ("train.TrainConfig", "train.recipes.", "train.train_and_evaluate",
        "train.columns.", "train.config.one_worker", "train.environment.", "train.experiment.", "train.extension.",
        "train.feeds.",
        "train.method.", "lab.sweep.SweepConfig", "lab.sweep.Grid", "lab.compare.", "lab.studies."),
    "schedules, in tests/train/test_schedules.py": ("train.schedules.",),
    "the language of configs, in tests/train/test_options.py": ("train.options.", "train.asynchrony.inputs"),
    "functions of results that are there, in tests/lab": ("lab.statistics.", "lab.sweep.updates_to_target",
        "theory.meter.MomentumMeter.restore",
        "train.precision."),
}  # fmt: skip


def given(name: str, parameter: str) -> dict[str, Any]:
    """What a call has beside its usual arguments when a parameter is looked at."""
    return GIVEN.get((name, parameter)) or GIVEN.get(("*", parameter)) or {}


def function(name: str) -> Callable[..., Any]:
    """By its name in `asyncflax`."""
    found: Any = asyncflax
    for part in name.split("."):
        if inspect.ismodule(found) and not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    return found


def refused(name: str, parameter: inspect.Parameter) -> list[Any]:
    """What a parameter refuses."""
    kind, optional = kind_of(parameter)
    if not kind:
        return []
    allowed = [*EXCEPTIONS.get((name, parameter.name), ((), ""))[0], *([None] if optional else [])]
    values = [*KINDS[kind].refused, *(RANGES.get(parameter.name, ()) if kind in ("int", "float", "staleness") else ())]
    return [value for value in values if not any(map(functools.partial(_is, value), allowed))]


def _is(value: Any, other: Any) -> bool:
    return type(value) is type(other) and repr(value) == repr(other)


def public() -> list[str]:
    """Functions, classes, and methods with arguments, of all that docs/library.md lists; each once."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "library.md").read_text()
    rows = page.split("## What is public")[1].split("\n## ")[0].split("|---|---|")[1].strip().splitlines()
    found: dict[int, str] = {}
    for home in (name for row in rows for name in re.findall("`(.+?)`", row.split("|")[2])):
        module = importlib.import_module("asyncflax" if home == "asyncflax" else f"asyncflax.{home}")
        prefix = "" if home == "asyncflax" else f"{home}."
        for name in module.__all__:
            value = getattr(module, name)
            is_own = str(getattr(value, "__module__", "")).startswith("asyncflax")
            if not (is_own and callable(value)) or hasattr(value, "_fields"):
                continue
            found.setdefault(id(value), prefix + name)
            for method, function in vars(value).items() if inspect.isclass(value) else ():
                if inspect.isfunction(function) and not method.startswith("_") and len(_named(function)) > 1:
                    found.setdefault(id(function), f"{prefix}{name}.{method}")
    return list(found.values())


def _named(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)
