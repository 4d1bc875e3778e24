"""A training run, from a config to a folder. Needs the extra `train`.

`config` describes a run in the language of `options`; `recipes` are published configs. `experiment` builds data, trace
and network, `method` the method with one of the `schedules`, `feeds` the batches of events. `loop` trains, and writes
metrics (`columns`, `records`, `writers`), `checkpoint`s and figures into a folder (`workdir`); `extension` continues a
complete run. `distributed` connects several processes, `precision` sets that of the network, and the commands share
`launcher`.
"""

from typing import TYPE_CHECKING

from asyncflax import _lazy

if TYPE_CHECKING:
    from asyncflax.train.config import TrainConfig
    from asyncflax.train.loop import RunInterruptedError, Summary, train_and_evaluate

_HOMES = {"TrainConfig": "config", "RunInterruptedError": "loop", "Summary": "loop", "train_and_evaluate": "loop"}
__getattr__, __dir__ = _lazy.exports(__name__, _HOMES)

__all__ = ["RunInterruptedError", "Summary", "TrainConfig", "train_and_evaluate"]
