"""Builds data, trace, method, network and evaluation from a `TrainConfig`.

Example:
  >>> from asyncflax.train import TrainConfig, experiment
  >>> config = TrainConfig(num_workers=4, num_updates=1000, momentum=0.3)
  >>> made = experiment.make_experiment(config, images=experiment.load_data(config))
  >>> made.trace.num_workers, made.plan.num_events, str(made.law), made.batches(made.plan[0]).shape
  (4, 1000, 'geometric(3)', (20, 32))
  >>> gradient_fn, meter = experiment.make_meter(made)
  >>> meter.momentum, meter.window
  (0.3, 500)
  >>> experiment.why_no_meter(TrainConfig(algorithm="dc_asgd"), made.trace)
  'dc_asgd is no plain heavy ball'
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from asyncflax import _check, _memory, data, models, queues
from asyncflax.base import AsyncAlgorithm
from asyncflax.engine.execute import init_run, need_memory, run_chunk
from asyncflax.engine.placement import make_mesh
from asyncflax.engine.plan import Chunk, Plan, make_plan
from asyncflax.gradients import GradientResult, from_loss
from asyncflax.staleness import StalenessLaw
from asyncflax.theory.meter import MomentumMeter, watch
from asyncflax.trace import Trace
from asyncflax.train.checkpoint import load_model
from asyncflax.train.config import TrainConfig
from asyncflax.train.feeds import Feed, make_feed
from asyncflax.train.method import learning_rates, make_algorithm, of_gradients, one_event
from asyncflax.train.options import Spec
from asyncflax.train.precision import compute_in

__all__ = ["Evaluation", "Experiment", "load_data", "make_experiment", "make_meter", "why_no_meter"]


class Evaluation(NamedTuple):
    """Evaluates parameters on all test data; padding of the last batch does not count.

    Attributes:
      sums: the function `sums(params, model_state, batch) -> dict` of the sums over a test batch by name; a PyTree that
        holds the data set if it is in memory.
      batches: the function `batches()` that yields the batches.
    """

    sums: Callable[..., dict[str, jax.Array]]
    batches: Callable[[], Iterable[Any]]

    def __call__(self, params: Any, model_state: Any = None) -> dict[str, jax.Array]:
        """'test_loss', 'test_accuracy' and, for records with more than five classes, 'test_top5_accuracy', each []."""
        return self.means(lambda batch: _jitted_sums(self.sums, params, model_state, batch))

    def means(self, sums_of: Callable[[Any], dict[str, jax.Array]]) -> dict[str, jax.Array]:
        """The means over all test data, given a function `sums_of(batch)` that sums over a batch."""
        total = functools.reduce(functools.partial(jax.tree.map, jnp.add), map(sums_of, self.batches()))
        return _means(total)


@jax.jit
def _jitted_sums(sums: Callable[..., Any], params: Any, model_state: Any, batch: Any) -> dict[str, jax.Array]:
    return sums(params, model_state, batch)


@jax.jit
def _means(total: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {f"test_{name}": x / total["count"] for name, x in total.items() if name != "count"}


class Experiment(NamedTuple):
    """The objects that a config describes.

    Attributes:
      config: the checked `TrainConfig`.
      data: the data set, `ImageData` or `ImageRecords`.
      feed: the `Feed` of the batches of events and the test data.
      trace: the trace; a placeholder for a live run, until it is recorded.
      law: the theoretical `StalenessLaw` of its staleness, or None.
      plan: the `Plan`, with cuts where the run is logged, evaluated and saved.
      algorithm: the method.
      schedule: the learning-rate schedule, `schedule(event) -> learning rate`.
      gradient_fn: the function `gradient_fn(params, batch, *, key, model_state) -> GradientResult` of a feed's batch.
      params: the initial parameters.
      model_state: the initial BatchNorm statistics, float32, see `models.functional_with_state`; None without.
      key: a typed JAX key, for augmentation and dropout.
      evaluate: the `Evaluation`, with running statistics.
      no_meter: the reason why `make_meter` cannot measure momentum, see `why_no_meter`; '' if it can.
    """

    config: TrainConfig
    data: data.ImageData | data.ImageRecords
    feed: Feed
    trace: Trace
    law: StalenessLaw | None
    plan: Plan
    algorithm: AsyncAlgorithm
    schedule: Callable[[Any], Any]
    gradient_fn: Callable[..., GradientResult]
    params: Any
    model_state: Any
    key: jax.Array
    evaluate: Evaluation
    no_meter: str

    def batches(self, chunk: Chunk) -> Any:
        """PyTree [E, ...]: the batches of a chunk's events for `run_chunk`; row indices if the data are in memory."""
        batches = self.feed.batches(chunk)
        return self.plan.placement.put_spread(batches, of_process=True) if self.feed.of_process else batches


def make_experiment(config: TrainConfig, *, images: data.ImageData | data.ImageRecords | None = None) -> Experiment:
    """Builds an experiment; writes nothing except the cache of a data set that is decoded for the first time.

    Args:
      config: the config of the run.
      images: the data set, if it has been loaded already.

    Raises:
      TypeError, ValueError: a field is invalid.
      FileNotFoundError: a data set or a trace does not exist.
    """
    config = config.check()
    named = config.named
    run = {"num_workers": config.num_workers, "num_updates": config.num_updates, "seed": config.seed}
    trace, law = _stand_in(config) if config.live else named.asynchrony.make(**run)
    if len(trace) != config.num_updates or trace.num_workers != config.num_workers:
        raise ValueError(
            f"{named.asynchrony.field}: {named.asynchrony.name} must return a trace with config.num_updates="
            f"{config.num_updates} events and config.num_workers={config.num_workers} workers, got {len(trace)} events "
            f"and {trace.num_workers} workers."
        )
    plan = plan_of(config, trace, _make_mesh(config, named.mesh))
    algorithm = make_algorithm(config)
    schedule = learning_rates(config)
    images = load_data(config) if images is None else images
    feed = make_feed(config, images, plan)
    batches = _memory.num_bytes(feed.example) * plan.chunks.worker.shape[-1]
    batches //= jax.process_count() if feed.of_process else 1
    _memory.need("config.batch_size", config.batch_size, 2 * batches, "the batches of a chunk, and of the next,")
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    apply, params, model_state = _make_model(config, feed, init_key)
    if named.start_from is not None:
        params, model_state = _trained(make_experiment(named.start_from.make(config=config), images=images))
    elif config.start_from:
        params, model_state = load_model(config.start_from, params=params, model_state=model_state)
    mean = jnp.asarray(feed.mean)
    gradient_fn = _make_gradient_fn(config, apply, feed, mean)
    # Fails here if the model rejects the images, or the method the parameters.
    jax.eval_shape(gradient_fn, params, feed.example, key=run_key, model_state=model_state)
    if named.algorithm.imported:
        with named.algorithm.reporting():
            jax.eval_shape(lambda w: _check.like("the updates", one_event(algorithm, w), "the parameters", w), params)
    need_memory(algorithm, params, plan, model_state)
    sums = _make_sums(config, apply, feed, mean)
    placed: tuple[Any, Any, Any, Any]
    placed, sums = plan.place(((gradient_fn, params, model_state, run_key), sums))
    spread = functools.partial(plan.placement.put_spread, of_process=feed.of_process)
    evaluate = Evaluation(sums, lambda: map(spread, feed.test_batches()))
    no_meter = why_no_meter(config, trace)
    return Experiment(config, images, feed, trace, law, plan, algorithm, schedule, *placed, evaluate, no_meter)


def _stand_in(config: TrainConfig) -> tuple[Trace, None]:
    """A placeholder for the trace of a live run: workers that take turns."""
    config.named.execution.make(seed=config.seed)  # fails here if the machine has too few devices
    takes_turns = queues.deterministic()
    made = queues.simulate(num_workers=config.num_workers, num_updates=config.num_updates, service_time=takes_turns)
    return made, None


def plan_of(config: TrainConfig, trace: Trace, mesh: Mesh | None = None, *, first_event: int = 0) -> Plan:
    """The plan of a trace, cut where a run is logged, evaluated and saved.

    `first_event` is the update of the run at which the trace begins.

    >>> import asyncflax
    >>> from asyncflax.train.config import TrainConfig
    >>> from asyncflax.train.experiment import plan_of
    >>> trace = asyncflax.staleness.constant(3).trace(num_updates=50)
    >>> [chunk.events for chunk in plan_of(TrainConfig(), trace, first_event=970)]
    [slice(970, 980, None), slice(980, 1000, None), slice(1000, 1020, None)]
    """
    places = {"width": config.width or None, "mesh": mesh, "server": config.server, "store": config.store}
    every = (config.log_every, config.eval_every, config.checkpoint_every)
    cuts = {-first_event % n + k for n in every for k in range(0, len(trace) - -first_event % n, n)}
    return make_plan(trace, **places, cuts=cuts, first_event=first_event)


def _trained(made: Experiment) -> tuple[Any, Any]:
    """Parameters and model state after a run without metrics."""
    state = init_run(made.algorithm, made.params, made.plan, key=made.key, model_state=made.model_state)
    with contextlib.closing(made.feed):
        for k in range(len(made.plan)):
            state, _ = run_chunk(made.algorithm, made.gradient_fn, state, made.plan[k], made.batches(made.plan[k]))
    return state.params, state.model_state


def load_data(config: TrainConfig) -> data.ImageData | data.ImageRecords:
    """Loads the data set that a config names.

    Args:
      config: the config, of which dataset, data_dir, data_cache and classes are used.

    Raises:
      TypeError, ValueError: the name is unknown, or the function returns another type.
      FileNotFoundError: the data set does not exist.
    """
    spec = config.check().named.dataset
    places = {"data_dir": config.data_dir or None, "cache": config.data_cache or None, "classes": config.classes}
    return spec.make(**places)


def _make_mesh(config: TrainConfig, spec: Spec | None) -> Mesh | None:
    """The mesh that a config names; by default all devices if there are several processes."""
    if spec is None and jax.process_count() == 1:
        return None
    mesh = make_mesh(device_groups=0) if spec is None else spec.make()
    if config.batch_size % mesh.shape["replica"]:
        raise ValueError(
            f"config.batch_size={config.batch_size} cannot be divided over the {mesh.shape['replica']} devices of each "
            f"group in config.mesh={config.mesh!r}."
        )
    return mesh


def why_no_meter(config: TrainConfig, trace: Trace) -> str:
    """The reason why `make_meter` cannot measure momentum in a run, in a few words; '' if it can.

    Args:
      config: the checked config.
      trace: the trace.
    """
    method, later = config.named.algorithm, trace.read_version[trace.read_version > 0]
    reasons = {
        "meter_window is 0": config.meter_window == 0,
        f"{method.name} is no plain heavy ball": method.name not in ("asgd", "momentum_asgd"),
        "weight decay is at the server": config.weight_decay > 0 and method.option("decay_at") == "server",
        "the learning rate is 0": config.learning_rate == 0,
        "some versions are read more than once": len(np.unique(later)) < len(later),
        f"fewer than meter_window={config.meter_window} versions are delivered": len(later) < config.meter_window,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def make_meter(experiment: Experiment) -> tuple[Callable[..., GradientResult], MomentumMeter]:
    """Creates the instrumented gradient function of an experiment, and the meter for its output.

    Args:
      experiment: an experiment whose `no_meter` is ''.
    """
    config = experiment.config
    change = of_gradients(config, decay_of_method=True)

    def changed(tx, grads, read_params):
        return tx.update(grads, tx.init(read_params), read_params, read_params=read_params)[0]

    applied = None if change is None else functools.partial(changed, change)
    gradient_fn = watch(experiment.gradient_fn, experiment.params, seed=config.seed, applied=applied)
    rates = np.asarray(jax.vmap(experiment.schedule)(jnp.arange(len(experiment.trace))))  # before the device is busy
    momentum = config.momentum if config.named.algorithm.name == "momentum_asgd" else 0.0
    window = MomentumMeter(learning_rate=lambda events: rates[events], momentum=momentum, window=config.meter_window)
    return gradient_fn, window


def _make_model(
    config: TrainConfig, feed: Feed, key: jax.Array
) -> tuple[Callable[..., tuple[jax.Array, Any]], Any, Any]:
    """The network for the images of a feed: its forward pass, initial parameters and model state."""
    spec = config.named.model
    arguments = spec.arguments(image_shape=feed.image_shape, num_classes=feed.num_classes, rngs=None)
    arguments.pop("rngs", None)
    with spec.reporting():
        network = models.initialized(spec.function, key, **arguments)
    apply, params, model_state = models.functional_with_state(network)
    return compute_in(config.precision, apply), params, model_state


def _scaled(config: TrainConfig, pixels: jax.Array, mean: jax.Array) -> jax.Array:
    """float32 images from uint8 pixels."""
    return (pixels.astype(jnp.float32) - mean[None]) * config.pixel_scale


def _make_gradient_fn(config: TrainConfig, apply: Callable[..., tuple[jax.Array, Any]], feed: Feed, mean: jax.Array):
    """The gradient of the loss on a feed's batch; a data set in memory is an argument of the compiled program."""

    def loss_fn(look_up, mean, params, batch, *, key, model_state=None):
        augment_key, dropout_key = jax.random.split(key)
        pixels, labels = look_up(batch)
        images = _scaled(config, pixels, mean)
        if feed.augments:
            images = data.augment(augment_key, images, pad=config.crop_pad, flip=config.flip)
        logits, model_update = apply(params, model_state, images, key=dropout_key)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, ({"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels)}, model_update)

    return from_loss(jax.tree_util.Partial(loss_fn, feed.look_up, mean), has_aux=True, has_model_update=True)


def _make_sums(config: TrainConfig, apply: Callable[..., tuple[jax.Array, Any]], feed: Feed, mean: jax.Array):
    """Loss and hits, summed over a stack of test batches, batch by batch; label -1 is ignored."""

    def sums(look_up, mean, params, model_state, stack):
        def of_batch(batch):
            pixels, labels = look_up(batch)
            counts = labels >= 0
            labels = jnp.maximum(labels, 0)
            logits, _ = apply(params, model_state, _scaled(config, pixels, mean))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            hits = {"accuracy": jnp.argmax(logits, axis=-1) == labels}
            if feed.ranks:
                own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
                before = jnp.arange(logits.shape[-1])[None] < labels[:, None]  # ties go to the lower label
                hits["top5_accuracy"] = jnp.sum((logits > own) | ((logits == own) & before), axis=-1) < 5
            return {
                "loss": jnp.sum(jnp.where(counts, losses, 0)),
                **{name: jnp.sum(hit & counts) for name, hit in hits.items()},
                "count": jnp.sum(counts),
            }

        return jax.tree.map(lambda x: x.sum(axis=0), jax.lax.map(of_batch, stack))

    return jax.tree_util.Partial(sums, feed.look_up_test, mean)
