"""The language of configs: a field names something by a Python call with keyword arguments.

    dc_asgd(strength=0.04)        queue(service_time=gamma(cv=0.1), policy=discard)        my_nets.Tiny(width=8)

Undotted names are the library's, dotted ones are imported (the working folder is last on the path). Values are Python
literals, bare words (which are strings) and calls; `NAME` is short for `NAME()`. Text is parsed, never evaluated, and
options are checked against the signature of the function, so that new functions need no registration. docs/configs.md
has an example of each field.

Fields with several entries hold *items*: a mapping, a sequence, or text, `label=value, value`. In all functions here,
`field` is the field's name in error messages.
"""

from asyncflax.train.options._calls import Spec, makers, read
from asyncflax.train.options._imports import named
from asyncflax.train.options._items import Items, parse_items
from asyncflax.train.options._spelling import plain_call, plain_items
from asyncflax.train.options._values import in_range, typed

__all__ = ["Items", "Spec", "makers", "named", "parse_items", "plain_call", "plain_items", "read", "typed"]
