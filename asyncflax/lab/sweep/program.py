"""Trains the cells of a sweep in tiles that fit into memory, with hyperparameters sharded over the devices."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from asyncflax.base import AsyncAlgorithm
from asyncflax.engine.execute import RunState
from asyncflax.engine.plan import Chunk
from asyncflax.lab.sweep import cells
from asyncflax.lab.sweep.grid import HYPER, PLACES
from asyncflax.train.columns import event_means, of_evaluation
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import Experiment, make_experiment
from asyncflax.train.feeds import CHUNK_BYTES, Feed
from asyncflax.train.method import averaged, make_algorithm, steered_momentum

# On CPUs more cells at once are no faster and fall out of the caches (benchmarks/RESULTS.md).
_FAST_ON_CPU = 10
_MEMORY_SHARE = 0.8
_ONE = PartitionSpec()  # the same on all devices
_CELLS = PartitionSpec(None, "cell")  # [e, h, ...]

Environment = tuple[tuple[str, Any], ...]  # fields of the config and their values


class _Compiled(NamedTuple):
    """The programs of a tile of cells."""

    init: Any
    advance: Any
    evaluate: Any


class Program:
    """Trains the cells of some environments.

    Args:
      config: the config shared by all cells.
      environments: all environments that will be trained.
      images: the data set, `ImageData` or `ImageRecords`.
      memory_gb: the memory to use on each device, in 10^9 bytes; 0 takes all that is free.
      numbers: the names of the hyperparameters, see `make_algorithm`.
    """

    def __init__(
        self,
        config: TrainConfig,
        environments: Sequence[Environment],
        images: Any,
        memory_gb: float = 0.0,
        numbers: tuple[str, ...] = HYPER,
    ):
        # One event at a time, cut where it is logged and evaluated: the chunks of all traces have one shape.
        self._config = dataclasses.replace(config, **PLACES, checkpoint_every=config.num_updates).check()
        self._numbers = numbers
        self._budget = 1e9 * memory_gb if memory_gb else _MEMORY_SHARE * _device_memory()
        self._mesh = Mesh(np.array(jax.devices()), ("cell",))
        self._gradient_fn: Any = None
        self._evaluation: Any = None
        self._feeds: dict[Any, Feed] = {}  # by identity: equal ones are shared
        self._experiments: dict[Environment, Experiment] = {}
        begin: dict[str, Any] = {}
        for environment in environments:
            fields = dict(environment) | ({"start_from": ""} if begin else {})
            made = make_experiment(dataclasses.replace(self._config, **fields), images=images)._replace(**begin)
            if self._config.start_from:  # a checkpoint is read once
                begin = {"params": made.params, "model_state": made.model_state}
            if self._gradient_fn is None:  # they hold the data set; one copy is enough
                self._gradient_fn, sums = self._put((made.gradient_fn, made.evaluate.sums), _ONE)
                self._evaluation = made.evaluate._replace(sums=sums)
            feed = self._feeds.setdefault(made.feed.identity, made.feed)
            made = made._replace(feed=feed, gradient_fn=self._gradient_fn, evaluate=self._evaluation)
            self._experiments[environment] = made
        slots = max(made.plan.num_slots for made in self._experiments.values())
        for environment, made in self._experiments.items():
            chunks = dataclasses.replace(made.plan.chunks, num_slots=slots)
            self._experiments[environment] = made._replace(plan=dataclasses.replace(made.plan, chunks=chunks))
        self._compiled: _Compiled | None = None
        self._compiled_for: Any = None

    def structure(self, environment: Environment) -> bool:
        """The key of an environment; environments with equal keys can be trained together."""
        return self._experiments[environment].plan.chunks.exclusive

    @property
    def updates(self) -> np.ndarray:
        """int [rows]: the updates after which training metrics are logged."""
        plan = next(iter(self._experiments.values())).plan
        return np.cumsum(plan.chunks.num_events)

    @property
    def evaluated(self) -> np.ndarray:
        """int [evaluations]: the updates after which test metrics are logged."""
        return np.array([0, *filter(self._is_evaluated, self.updates)])

    def _is_evaluated(self, update: int) -> bool:
        return update % self._config.eval_every == 0 or update == self._config.num_updates

    def tile(self, environments: Sequence[Environment], num_hypers: int, cells_at_once: int = 0) -> tuple[int, int]:
        """The numbers of environments and hyperparameters to train together.

        Args:
          environments: environments of one structure.
          num_hypers: the number of hyperparameters.
          cells_at_once: the largest number of cells to train together; 0 takes as many as are fast and fit.

        Raises:
          ValueError: `cells_at_once` cells, or a single one, do not fit into memory.
        """
        on_cpu = jax.default_backend() == "cpu"
        limit = cells_at_once or (_FAST_ON_CPU if on_cpu else len(environments) * num_hypers)
        h = _even(num_hypers, limit)
        fitting = int(CHUNK_BYTES // self._batch_bytes(environments[:1]))  # each has its own images
        e = _even(len(environments), min(limit // h, fitting))
        while (need := self._memory(environments[:e], h)) > self._budget:
            fitting = int(e * h * self._budget / need)
            if cells_at_once or e * h == 1:
                what = f"{e * h} cells at once need" if e * h > 1 else "one cell needs"
                advice = f"set cells_at_once={fitting}" if fitting else "use a smaller batch or model, or more memory"
                raise ValueError(
                    f"{what} {need / 1e9:.3g} GB of memory, but only {self._budget / 1e9:.3g} GB is free; {advice}."
                )
            fitting = max(1, min(fitting, e * h - 1))
            e, h = (_even(e, fitting // h), h) if fitting >= h else (1, _even(h, fitting))
        return e, h

    def _memory(self, environments: Sequence[Environment], num_hypers: int) -> float:
        """Peak bytes on a device while the tile is trained or evaluated."""
        sizes = []
        for compiled in self._programs(environments, num_hypers):
            m = compiled.memory_analysis()
            held = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
            sizes.append(m.temp_size_in_bytes + held)
        return max(sizes) + self._batch_bytes(environments)  # of the next chunk, prefetched

    def _batch_bytes(self, environments: Sequence[Environment]) -> int:
        """Bytes of the batches of a chunk."""
        batches = self._abstract_batches([self._experiments[environment] for environment in environments])
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(batches))

    def train(
        self,
        environments: Sequence[Environment],
        hypers: np.ndarray,
        on_updates: Callable[[int], Any] = lambda updates: None,
        tile: tuple[int, int] = (1, 1),
    ) -> dict[str, np.ndarray]:
        """Trains the cells environments x hypers.

        Args:
          environments: e environments of one structure.
          hypers: float [h, n], one column for each of the numbers.
          on_updates: a callback that receives the number of updates so far.
          tile: the numbers of environments and hyperparameters to pad to, for which a program is compiled.

        Returns:
          float arrays [e, h, rows] or [e, h, evaluations] by name of metric, NaN once a cell has diverged;
          'diverged_at' [e, h], the update of the row that showed it, or -1; 'simulated_time' [e, h, evaluations].
        """
        count = len(environments), len(hypers)
        environments = [*environments, *[environments[-1]] * (tile[0] - len(environments))]
        hypers = _filled(hypers, max(tile[1], len(hypers)))
        made = [self._experiments[environment] for environment in environments]
        feeds = {id(m.feed): m.feed for m in made}
        for feed in feeds.values():
            feed.share(len(feeds))
        programs = self._programs(environments, len(hypers))
        hypers, keys, *start = self._start(made, hypers)
        states = programs.init(hypers, keys, *start)
        rows, evaluations = [], [self._look(programs, states)]
        try:
            for k in range(len(made[0].plan)):
                events, chunk = self._chunk(made, k)
                batches = self._batches(made, k)
                states, row = programs.advance(self._gradient_fn, hypers, keys, states, chunk, batches)
                if rows:  # one chunk late, so that the device always has work
                    jax.block_until_ready(rows[-1])
                    on_updates(events.start)
                rows.append(row)
                if self._is_evaluated(events.stop):
                    evaluations.append(self._look(programs, states))
        finally:
            for feed in self._feeds.values():
                feed.close()
        metrics = _stacked(rows, count) | _stacked(evaluations, count)
        on_updates(self._config.num_updates)
        masked = _mask(metrics, self.updates, self.evaluated)
        return masked | {"simulated_time": self._clock(made, count)}

    def _programs(self, environments: Sequence[Environment], num_hypers: int) -> _Compiled:
        """The programs of a tile of this size; only the latest are kept."""
        wanted = (len(environments), num_hypers, self.structure(environments[0]))
        if self._compiled is None or self._compiled_for != wanted:
            made = [self._experiments[environment] for environment in environments]
            start = self._start(made, np.ones((num_hypers, len(self._numbers))))
            init = functools.partial(cells.begin, self._make, made[0].plan)
            init = self._on_all_devices(init, (_CELLS, _ONE, _ONE, _ONE)).lower(*start).compile()
            states = self._abstract(init.out_info, _CELLS)
            _, chunk = self._chunk(made, 0)
            batches, test_batch = self._abstract_batches(made), self._abstract(made[0].feed.test_example, _ONE)
            advance = functools.partial(_advance, self._make)
            advance = self._on_all_devices(advance, (_ONE, _CELLS, _ONE, _CELLS, _ONE, _ONE), donate_argnums=3)
            evaluate = self._on_all_devices(_evaluate, (_ONE, _CELLS, _CELLS, _ONE))
            self._compiled = _Compiled(
                init,
                advance.lower(self._gradient_fn, *start[:2], states, chunk, batches).compile(),
                evaluate.lower(self._evaluation.sums, states.params, states.model_state, test_batch).compile(),
            )
            self._compiled_for = wanted
        return self._compiled

    def _make(self, hyper: jax.Array) -> AsyncAlgorithm:
        return make_algorithm(self._config, dict(zip(self._numbers, hyper, strict=True)))

    def _look(self, programs: _Compiled, states: RunState) -> Mapping[str, jax.Array]:
        """The metrics of the cells on the test data, [e, h] by name."""

        def means_of(params: Any) -> dict[str, jax.Array]:
            sums = functools.partial(programs.evaluate, self._evaluation.sums, params, states.model_state)
            return self._evaluation.means(lambda batch: sums(self._put(batch, _ONE)))

        means = means_of(states.params)
        if self._config.ema_decay == 0:
            return means
        average = means_of(averaged(states.algorithm, states.params))
        return means | {f"ema_{name}": value for name, value in average.items()}

    def _on_all_devices(self, function: Any, in_specs: Any, **options: Any) -> Any:
        mapped = jax.shard_map(function, mesh=self._mesh, in_specs=in_specs, out_specs=_CELLS, check_vma=False)
        return jax.jit(mapped, **options)

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        return jax.device_put(tree, NamedSharding(self._mesh, spec))

    def _start(self, made: Sequence[Experiment], hypers: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """The arguments of `cells.begin`: hypers padded to whole devices, keys, parameters, model state."""
        keys, params, model_state = _stack([(m.key, m.params, m.model_state) for m in made])
        whole = -(-len(hypers) // self._mesh.size) * self._mesh.size
        hypers = _filled(hypers, whole).astype(jax.tree.leaves(params)[0].dtype)
        hypers = np.broadcast_to(hypers, (len(made), *hypers.shape))
        return self._put(hypers, _CELLS), *self._put((keys, params, model_state), _ONE)

    def _chunk(self, made: Sequence[Experiment], k: int) -> tuple[slice, Any]:
        """The events of chunk k, and the chunk of all environments."""
        chunks = [m.plan[k] for m in made]
        return chunks[0].events, self._put(Chunk.stack(chunks), _ONE)

    def _batches(self, made: Sequence[Experiment], k: int) -> Any:
        """The batches of chunk k [e, E, ...]; environments with the same data share them."""
        found = {}
        for m in made:
            if id(m.feed) not in found:
                found[id(m.feed)] = m.feed.batches(m.plan[k])
        return self._put(_stack([found[id(m.feed)] for m in made], np.stack), _ONE)

    def _abstract_batches(self, made: Sequence[Experiment]) -> Any:
        """The shapes of `_batches`."""
        events = made[0].plan.chunks.worker.shape[-1]
        return self._abstract(made[0].feed.example, _ONE, len(made), events)

    def _abstract(self, example: Any, spec: PartitionSpec, *axes: int) -> Any:
        """The shapes of arrays like those of an example, with further leading axes."""
        sharding = NamedSharding(self._mesh, spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype, sharding=sharding), example)

    def _clock(self, made: Sequence[Experiment], count: tuple[int, int]) -> np.ndarray:
        """Simulated seconds [e, h, evaluations]; NaN for traces without a clock."""
        none = np.full(self._config.num_updates, np.nan)
        clocks = np.stack([np.append(0.0, none if m.trace.time is None else m.trace.time) for m in made[: count[0]]])
        return np.repeat(clocks[:, None, self.evaluated], count[1], axis=1)


def _advance(
    make: cells.Make, gradient_fn: Any, hypers: Any, keys: Any, states: Any, chunk: Chunk, batches: Any
) -> Any:
    """One chunk of all cells: their states, and the means of the chunk [e, h] by name."""
    states, out = cells.advance(make, gradient_fn, hypers, keys, states, chunk, batches)
    row = event_means(out, lambda values: jnp.sum(values, axis=-1) / chunk.num_events)  # beyond these `out` is zero
    steered = jax.vmap(jax.vmap(lambda state: steered_momentum(state.algorithm)))(states)
    return states, row if steered is None else row | {"explicit_momentum": steered}


def _evaluate(sums: Callable[..., Any], params: Any, model_state: Any, batch: Any) -> Mapping[str, jax.Array]:
    of_cell = lambda params, model_state: sums(params, model_state, batch)
    return jax.vmap(jax.vmap(of_cell))(params, model_state)


def _even(count: int, limit: int) -> int:
    """The size of as few and as equal parts as possible, at most `limit` each."""
    return -(-count // -(-count // max(limit, 1)))


def _stacked(rows: Sequence[Mapping[str, jax.Array]], count: tuple[int, int]) -> dict[str, np.ndarray]:
    """The first e and h cells of rows, by name [e, h, rows]."""
    take = (slice(count[0]), slice(count[1]))
    return {name: np.stack([np.asarray(row[name])[take] for row in rows], axis=-1) for name in rows[0]}


def _mask(metrics: dict[str, np.ndarray], updates: np.ndarray, evaluated: np.ndarray) -> dict[str, np.ndarray]:
    """Sets NaN from the first row in which a loss or the gap is not finite; 'diverged_at' is its update."""
    never = np.iinfo(np.int64).max
    first = np.full(metrics["train_loss"].shape[:2], never)
    for name, at in (("train_loss", updates), ("gap", updates), ("test_loss", evaluated)):
        broken = ~np.isfinite(metrics[name])
        first = np.minimum(first, np.where(broken.any(axis=-1), at[broken.argmax(axis=-1)], never))
    masked = {}
    for name, values in metrics.items():
        at = evaluated if of_evaluation(name) else updates
        masked[name] = np.where(at >= first[..., None], np.nan, values)
    return masked | {"diverged_at": np.where(first == never, -1, first)}


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, padded to `count` with the last one."""
    return rows[np.minimum(np.arange(count), len(rows) - 1)]


def _stack(trees: Sequence[Any], stack: Callable[..., Any] = jnp.stack) -> Any:
    return jax.tree.map(lambda *leaves: stack(leaves), *trees)


def _device_memory() -> float:
    """Bytes of the smallest device; CPU devices share what the machine has."""
    if jax.default_backend() == "cpu":
        if not hasattr(os, "sysconf"):
            raise ValueError("this system does not report its memory; set config.memory_gb.")
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / jax.device_count()
    stats = [device.memory_stats() or {} for device in jax.devices()]
    return min(s.get("bytes_limit", 8e9) - s.get("bytes_in_use", 0) for s in stats)
