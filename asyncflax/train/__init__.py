"""One training, from a config to a folder. Needs the extra `train`.

`config` says what is trained, in words that `options` looks up; `recipes` are configs of papers. `experiment` makes
data, trace and network of a config, `method` the method, with one of the `schedules`; `feeds` has the batches of
events; `loop` trains, and leaves metrics (`columns`, `records`, `writers`), `checkpoint`s and figures in a folder
(`workdir`); `extension` is what comes after the planned end. `distributed` are several processes that train together,
`precision` is how a network computes, `launcher` what the command line has.
"""

from typing import TYPE_CHECKING

from asyncflax import _lazy

if TYPE_CHECKING:
    from asyncflax.train.config import TrainConfig
    from asyncflax.train.loop import RunInterruptedError, Summary, train_and_evaluate

_HOMES = {"TrainConfig": "config", "RunInterruptedError": "loop", "Summary": "loop", "train_and_evaluate": "loop"}
__getattr__, __dir__ = _lazy.exports(__name__, _HOMES)

__all__ = ["RunInterruptedError", "Summary", "TrainConfig", "train_and_evaluate"]
