"""The configuration of a training run: one flat, typed dataclass.

Fields that name something (a method, a network, a data set, a source of asynchrony) are calls with keywords; see
`options` for the language.
"""

# No `from __future__ import annotations`: config flags need the types of fields, not their names.

import dataclasses
import functools
import inspect
import typing
from collections.abc import Mapping
from typing import Any

import optax
from jax.sharding import Mesh

from asyncflax import _check, algorithms, data
from asyncflax.base import AsyncAlgorithm
from asyncflax.engine.placement import SERVERS, STORES, make_mesh
from asyncflax.train import asynchrony, execution, schedules
from asyncflax.train.options import Spec, makers, plain_call, read, typed
from asyncflax.train.precision import PRECISIONS
from asyncflax.train.writers import read_writers

__all__ = ["GIVEN", "TrainConfig", "one_worker"]

# Fields that do not change what is computed: a run may be resumed with other values.
_FREE = {"free": True}
_CALL = {"plain": plain_call}
_RUN = ("num_workers", "num_updates", "seed")  # arguments of every source of asynchrony
_METHODS = makers(algorithms, AsyncAlgorithm)
GIVEN = ("learning_rate", "momentum", "weight_decay")  # fields that are parameters of methods, beside num_workers


class Named:
    """The `Spec` of each field that names something, parsed on first access and cached.

    `mesh` is None for the default devices; `start_from` is None for a checkpoint or ''. Accessing `model` loads Flax.
    """

    def __init__(self, config: "TrainConfig"):
        self._config = config

    @functools.cached_property
    def dataset(self) -> Spec:
        loaders = {**makers(data, data.ImageData), **makers(data, data.ImageRecords)}
        kinds = (data.ImageData, data.ImageRecords)
        return self._read("dataset", loaders, ("data_dir", "cache", "classes"), kinds)

    @functools.cached_property
    def asynchrony(self) -> Spec:
        kinds = makers(asynchrony, asynchrony.Asynchrony)
        return self._read("asynchrony", kinds, _RUN, (asynchrony.Asynchrony,))

    @functools.cached_property
    def execution(self) -> Spec:
        return self._read("execution", makers(execution, execution.Execution), ("seed",))

    @functools.cached_property
    def algorithm(self) -> Spec:
        kinds = (AsyncAlgorithm, optax.GradientTransformation)
        return self._read("algorithm", _METHODS, (*GIVEN, "num_workers"), kinds, given_imported=("learning_rate",))

    @functools.cached_property
    def schedule(self) -> Spec:
        given = ("learning_rate", "num_updates", "num_workers")
        return self._read("schedule", makers(schedules, schedules.Schedule), given)

    @functools.cached_property
    def mesh(self) -> Spec | None:
        return self._read("mesh", {"mesh": make_mesh}, ("devices",), (Mesh,)) if self._config.mesh else None

    @functools.cached_property
    def model(self) -> Spec:
        from asyncflax import models

        networks = {name: getattr(models, name) for name in models.__all__ if inspect.isclass(getattr(models, name))}
        return self._read("model", networks, ("image_shape", "num_classes", "rngs"))

    @functools.cached_property
    def start_from(self) -> Spec | None:
        text = self._config.start_from
        return self._read("start_from", {"one_worker": one_worker}, ("config",)) if "(" in text else None

    @functools.cached_property
    def writers(self) -> list[Spec]:
        return read_writers("config.writers", self._config.writers)

    def _read(self, field: str, library: Mapping[str, Any], *given: Any, **options: Any) -> Spec:
        return read(f"config.{field}", getattr(self._config, field), library, *given, **options)

    def without_model(self) -> list[Spec]:
        """All specs except those of the network, which would load Flax, and of the writers."""
        named = (
            self.dataset,
            self.asynchrony,
            self.execution,
            self.algorithm,
            self.schedule,
            self.mesh,
            self.start_from,
        )
        return [spec for spec in named if spec is not None]

    def sources(self) -> dict[str, str]:
        """Digests of the source of imported code, by module or package."""
        specs = [*self.without_model(), self.model]
        return {name: digest for spec in specs for name, digest in spec.sources().items()}


@dataclasses.dataclass
class TrainConfig:
    """A training run under asynchrony. Fields can be set until `check` returns an immutable copy.

    Raises:
      (`check`) TypeError, ValueError: a field has an invalid type or value; the message names it.

    Example:
      >>> from asyncflax.train.config import TrainConfig, one_worker
      >>> config = TrainConfig(num_workers=8, asynchrony="queue(service_time=gamma(cv=0.1))", momentum=-0.09)
      >>> config.check().named.algorithm.name
      'momentum_asgd'
      >>> first = one_worker(config, num_updates=200, learning_rate=0.1)
      >>> first.num_workers, first.momentum, first.num_updates
      (1, 0.0, 200)
      >>> TrainConfig(asynchrony="queue(service_time=exponental)").check()
      Traceback (most recent call last):
        ...
      ValueError: config.asynchrony: service_time must be one of 'deterministic', 'exponential', 'gamma', \
'heterogeneous_gamma', 'lognormal', 'measured', 'pareto', 'stragglers', got 'exponental'; did you mean 'exponential'?
    """

    # Data and network.
    dataset: str = dataclasses.field(default="digits", metadata=_CALL)  # a data set of asyncflax.data, or your own
    data_dir: str = dataclasses.field(default="", metadata=_FREE)  # folder of TFDS; '' is $TFDS_DATA_DIR
    data_cache: str = dataclasses.field(default="", metadata=_FREE)  # file of decoded arrays; '' is the default one
    model: str = dataclasses.field(default="SmallCnn", metadata=_CALL)  # a network, such as 'SmallCnn(dropout=0.2)'
    precision: str = "float32"  # of the network's computation: float32, tf32 or bfloat16; parameters stay float32
    # A checkpoint with the initial parameters, as 'WORKDIR/checkpoints/4000', or a warm start without asynchrony, as
    # 'one_worker(num_updates=200, learning_rate=0.1)'.
    start_from: str = ""
    pixel_scale: float = 1 / 255  # multiplier of pixels 0..255 minus the mean image
    crop_pad: int = 0  # padding of random crops, in pixels
    classes: tuple[int, ...] = ()  # ImageNet labels to train on, as range(8); () for all
    image_size: int = 224  # side of the crops of ImageNet images
    crop_area: tuple[float, ...] = (0.08, 1.0)  # lowest and highest share of an ImageNet image in a crop
    # On a corrupted JPEG: stop the run, or skip (use another image instead).
    on_corrupt: str = dataclasses.field(default="stop", metadata=_FREE)
    decode_processes: int = dataclasses.field(default=0, metadata=_FREE)  # processes that decode JPEGs; 0 for threads
    flip: bool = False  # random horizontal flips
    batch_size: int = 32  # images per gradient

    # Asynchrony.
    num_workers: int = 1  # M, the number of workers (compute groups)
    # 'queue(service_time=gamma(cv=0.1), max_staleness=16, policy=discard)', 'barrier(service_time=...)',
    # 'law(distribution=geometric(mean=7.0), assign=round_robin)' or 'recorded(path=...)'
    asynchrony: str = dataclasses.field(default="queue", metadata=_CALL)
    # emulated, or live workers: 'threads(service_time=exponential(mean=0.05))', which ignores `asynchrony`
    execution: str = dataclasses.field(default="emulated", metadata=_CALL)

    # The method: one of asyncflax.algorithms such as 'dc_asgd(strength=0.04)', of Optax, or your own.
    algorithm: str = dataclasses.field(default="momentum_asgd", metadata=_CALL)
    learning_rate: float = 0.05  # alpha
    # Its schedule: constant, cosine(warmup=500), linear(begin=0.8), steps(at=(0.5, 0.75), factor=0.1), one of Optax
    schedule: str = dataclasses.field(default="constant", metadata=_CALL)
    momentum: float = 0.0  # mu_L, explicit, in [-1, 1]
    weight_decay: float = 0.0  # see decay_at in the options of the algorithm
    decay_mask: str = "all"  # which parameters decay: all, or weights (no biases or normalization parameters)
    bias_multiplier: float = 1.0  # learning rate of biases relative to that of weights; 2 in Caffe's recipes
    clip_norm: float = 0.0  # maximum norm of gradients, before weight decay; 0 for no clipping
    ema_decay: float = 0.0  # decay of a moving average of the parameters, which is also evaluated; 0 for none

    # Execution; results do not depend on it, up to rounding.
    # Maximum number of gradients computed together; 0 for one per device group.
    width: int = dataclasses.field(default=0, metadata=_FREE)
    # Devices, as 'mesh(device_groups=4, replicas=2)'; '' is one device, or all of several processes.
    mesh: str = dataclasses.field(default="", metadata=_FREE)
    server: str = dataclasses.field(default="replicated", metadata=_FREE)  # or 'sharded' over the mesh
    store: str = "device"  # memory of past versions: device, ring or host

    # The run.
    num_updates: int = 1000  # updates of the server, T
    # Further updates after the run is complete, as 500; append further extensions: 500,200.
    extend: tuple[int, ...] = dataclasses.field(default=(), metadata=_FREE)
    seed: int = 0  # of initial weights, batches, augmentation, dropout and the trace
    log_every: int = 20  # updates between two rows of metrics
    eval_every: int = 200  # updates between two evaluations on the test data
    eval_batch_size: int = 500  # images evaluated together
    checkpoint_every: int = 200  # updates between two checkpoints
    # Window of the momentum meter, in updates; its estimates are logged with the evaluations. 0 for no meter.
    meter_window: int = dataclasses.field(default=500, metadata=_FREE)
    keep_checkpoints: int = dataclasses.field(default=3, metadata=_FREE)  # number of newest to keep, besides the best
    # Where metrics are written besides metrics.jsonl and metrics.csv: 'tensorboard, wandb(project=mine)', or your own.
    writers: str = dataclasses.field(default="tensorboard", metadata=_FREE)

    @property
    def live(self) -> bool:
        """Whether workers actually run concurrently."""
        return self.named.execution.name != "emulated"

    @property
    def cited(self) -> list[Any]:
        """The method's function, for `asyncflax.citation`."""
        return [self.named.algorithm.function]

    @property
    def named(self) -> Named:
        """The specs of the fields; a checked config caches them."""
        return vars(self).get("_named") or Named(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_named" in vars(self):
            raise dataclasses.FrozenInstanceError(f"cannot set config.{name} once checked; use dataclasses.replace.")
        super().__setattr__(name, value)

    def check(self) -> "TrainConfig":
        """Checks types, values and names, once.

        Returns:
          an immutable copy with fields converted to their types; a checked config is returned as is.
        """
        if "_named" in vars(self):
            return self
        config, hints = dataclasses.replace(self), typing.get_type_hints(TrainConfig)
        for field in dataclasses.fields(self):
            setattr(config, field.name, typed(f"config.{field.name}", getattr(self, field.name), hints[field.name]))
        config._check_values()
        vars(config)["_named"] = Named(config)
        config._check_names(config.named)
        return config

    def _check_values(self) -> None:
        """Raises on values out of range."""
        at_least_1 = ("batch_size", "num_workers", "num_updates", "log_every", "eval_every", "eval_batch_size")
        for name in (*at_least_1, "checkpoint_every", "keep_checkpoints"):
            _check.integer(f"config.{name}", getattr(self, name), 1)
        for count in self.extend:
            _check.integer("config.extend", count, 1)
        _check.integer("config.crop_pad", self.crop_pad, 0)
        _check.integer("config.width", self.width, 0)
        _check.choice("config.server", self.server, SERVERS)
        _check.choice("config.store", self.store, STORES)
        _check.integer("config.meter_window", self.meter_window, 12 if self.meter_window > 0 else 0)
        _check.integer("config.seed", self.seed, 0, 2**32 - 1)  # JAX keeps 32 bits
        for name in ("learning_rate", "weight_decay", "bias_multiplier", "clip_norm"):
            _check.number(f"config.{name}", getattr(self, name), low=0.0)
        _check.number("config.pixel_scale", self.pixel_scale, low=0.0, exclusive_low=True)
        _check.momentum(self.momentum, "config.momentum")
        _check.number("config.ema_decay", self.ema_decay, low=0.0, high=1.0)
        _check.choice("config.decay_mask", self.decay_mask, ("all", "weights"))
        _check.choice("config.precision", self.precision, PRECISIONS)

    def _check_names(self, named: Named) -> None:
        """Raises on unknown names and options (except the network's), and on fields that contradict each other."""
        named.without_model()
        if named.start_from is not None:
            named.start_from.arguments(config=self)
        self._check_images(named.dataset)
        _ = named.writers
        if self.live:
            self._check_live()
        if named.algorithm.name == "ssgd" and named.asynchrony.name != "barrier":
            raise ValueError(
                "config.algorithm='ssgd' takes one step per round of all workers; set config.asynchrony='barrier'."
            )
        if named.algorithm.name == "dc_asgd" and self.bias_multiplier != 1.0:
            raise ValueError(
                f"config.bias_multiplier={self.bias_multiplier} is for methods that are linear in the gradient, "
                "which dc_asgd is not; set it to 1."
            )

    def _check_live(self) -> None:
        """Raises on fields that do not apply to live workers."""
        if self.named.algorithm.name == "ssgd":
            raise ValueError(
                f"config.algorithm='ssgd' takes one step per round of all workers, but config.execution="
                f"{self.execution!r} has no rounds; leave it at 'emulated'."
            )
        for name in ("mesh", "server", "store", "extend"):
            value, default = getattr(self, name), getattr(TrainConfig, name)
            if value != default:
                raise ValueError(
                    f"config.{name}={value!r} requires an emulated run, but config.execution={self.execution!r} is "
                    f"live; leave it at {default!r}."
                )

    def _check_images(self, dataset: Spec) -> None:
        """Raises on fields that do not apply to the data set, and on invalid values of ImageNet's fields."""
        in_memory, records = dataset.makes(data.ImageData), dataset.makes(data.ImageRecords)
        unused = ("classes", "image_size", "crop_area", "on_corrupt", "decode_processes") if in_memory else ()
        what = "sets of JPEGs such as ImageNet" if in_memory else "sets in memory"
        for name in ("crop_pad", "data_cache") if records else unused:
            value, default = getattr(self, name), getattr(TrainConfig, name)
            if value != default:
                raise ValueError(
                    f"config.{name}={value!r} is for data {what}, which {self.dataset!r} is not; "
                    f"leave it at {default!r}."
                )
        _check.integer("config.image_size", self.image_size, 8)
        _check.integer("config.decode_processes", self.decode_processes, 0)
        _check.choice("config.on_corrupt", self.on_corrupt, ("stop", "skip"))
        if len(self.crop_area) != 2 or not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"config.crop_area must be (low, high) with 0 < low <= high <= 1, got {self.crop_area}.")
        if len(set(self.classes)) < len(self.classes) or min(self.classes, default=0) < 0:
            raise ValueError(f"config.classes must be distinct labels >= 0, got {self.classes}.")


def one_worker(
    config: TrainConfig, *, num_updates: int, learning_rate: float, momentum: float = 0.0, seed: int = 0
) -> TrainConfig:
    """The config of a warm start: one worker with the data, network and batches of another config.

    It has a seed of its own, so that all seeds of a sweep start from the same parameters.

    Args:
      config: the config of the run that starts from the result.
      num_updates: the number of updates.
      learning_rate: the constant learning rate.
      momentum: the momentum mu.
      seed: the random seed of initial weights and batches.
    """
    kept = ("dataset", "data_dir", "data_cache", "model", "precision", "pixel_scale", "crop_pad", "flip", "batch_size")
    kept += ("classes", "image_size", "crop_area", "on_corrupt", "decode_processes", "eval_batch_size")
    fields = {name: getattr(config, name) for name in kept}
    fields |= {"learning_rate": learning_rate, "momentum": momentum, "num_updates": num_updates, "seed": seed}
    fields |= dict.fromkeys(("log_every", "eval_every", "checkpoint_every"), num_updates)
    return TrainConfig(**fields)
