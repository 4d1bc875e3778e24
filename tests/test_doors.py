"""All public parameters and all fields of configs, with the values that `doors` refuses and accepts beforehand."""

from __future__ import annotations

import dataclasses
import inspect
import time
from typing import Any

import doors
import jax
import numpy as np
import optax
import pytest
from flax import nnx

import asyncflax
from asyncflax.errors import RunError

REFUSALS = (TypeError, ValueError, OSError, RunError)
SECONDS = 20.0  # far more than a refusal takes, far less than what is too large


def parameters(name: str) -> dict[str, inspect.Parameter]:
    found = inspect.signature(doors.function(name)).parameters.values()
    return {p.name: p for p in found if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def call(name: str, **changes: Any) -> Any:
    arguments = {**doors.CALLS[name], **changes}
    function = doors.function(name)
    own = (arguments.pop("self"),) if "self" in arguments else ()
    if inspect.isclass(function) and issubclass(function, nnx.Module):
        arguments.setdefault("rngs", nnx.Rngs(0))
    return function(*own, **arguments)


def fault(name: str, parameter: str, value: Any, attempt) -> str:
    """What is wrong with how a value is refused; '' where nothing is."""
    shown, began = f"{name}({parameter}={value!r})", time.perf_counter()
    try:
        attempt()
    except REFUSALS as error:
        text = str(error)
        if time.perf_counter() - began > SECONDS:
            return f"{shown} took {time.perf_counter() - began:.0f} s"
        if "\n" in text.strip():
            return f"{shown}: not one line: {text[:200]!r}"
        return "" if parameter in text else f"{shown}: is not named in {type(error).__name__}: {text[:200]}"
    except Exception as error:
        return f"{shown}: {type(error).__name__}: {str(error)[:200]}"
    return f"{shown} is accepted"


def refusals(name: str, parameter: inspect.Parameter) -> list[str]:
    given = doors.given(name, parameter.name)
    faults = [
        fault(name, parameter.name, value, lambda value=value: call(name, **{**given, parameter.name: value}))
        for value in doors.refused(name, parameter)
    ]
    return [f for f in faults if f]
