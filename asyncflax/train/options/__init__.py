"""The language of configs: a field names a function and its options as a Python call.

    dc_asgd(strength=0.04)        queue(service_time=gamma(cv=0.1), policy=discard)        my_nets.Tiny(width=8)

Undotted names are the library's; dotted ones are imported (the working folder is last on the path). Values are Python
literals, bare words (which are strings) and calls; `NAME` is short for `NAME()`. Text is parsed, never evaluated, and
options are checked against the function's signature, so new functions need no registration. docs/configs.md has an
example of each field.

Fields with several entries hold *items*: a mapping, a sequence, or text, `label=value, value`. In all functions,
`field` is the field's name in error messages.

Example:
  >>> import asyncflax
  >>> from asyncflax.train import options
  >>> methods = options.makers(asyncflax.algorithms, asyncflax.AsyncAlgorithm)
  >>> spec = options.read("config.algorithm", "asgd(weight_decay=1e-4)", methods)
  >>> spec.name, spec.options, str(spec), isinstance(spec, options.Spec)
  ('asgd', {'weight_decay': 0.0001}, 'asgd(weight_decay=0.0001)', True)
  >>> spec.make(learning_rate=0.5)
  asgd(decay_at='read', learning_rate=0.5, weight_decay=0.0001)
  >>> options.read("config.algorithm", "asgd(weight_dcay=1e-4)", methods, given=("learning_rate",))
  Traceback (most recent call last):
    ...
  ValueError: config.algorithm: asgd has no option 'weight_dcay', got 'asgd(weight_dcay=1e-4)'; did you mean \
'weight_decay'? Options: weight_decay, decay_at.
  >>> options.named("config.algorithm", "optax.adamw").__name__
  'adamw'

  >>> options.parse_items("config.axes", "momentum=(0, 0.3), algorithm=(asgd, dc_asgd(strength=1))")
  [('momentum', (0, 0.3)), ('algorithm', ('asgd', 'dc_asgd(strength=1)'))]
  >>> options.parse_items("config.methods", "mild=ormo(momentum=0.5), asgd")
  [('mild', 'ormo(momentum=0.5)'), ('', 'asgd')]
  >>> options.plain_items("momentum=(0, 1)") == options.plain_items({"momentum": [0, 1]})
  True
  >>> options.plain_call("queue( service_time=gamma() )"), options.plain_call("recorded(path='a.npz')")
  ('queue(service_time=gamma)', 'recorded')
  >>> options.typed("config.seed", 3, float), options.typed("config.classes", ["range(3)"], tuple[int, ...])
  (3.0, (0, 1, 2))
"""

from asyncflax.train.options._calls import Spec, makers, read
from asyncflax.train.options._imports import named
from asyncflax.train.options._spelling import plain_call, plain_items
from asyncflax.train.options._values import Items, in_range, parse_items, typed

__all__ = ["Items", "Spec", "makers", "named", "parse_items", "plain_call", "plain_items", "read", "typed"]
