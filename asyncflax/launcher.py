"""What the launchers share: a config flag with overrides, a workdir flag, and errors as one clear sentence.

    --config=configs/digits.py --config.num_groups=8 --workdir=runs/digits

Needs absl-py and ml-collections (the extra `train`).
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from asyncflax import _check
from asyncflax.workdir import RunError

__all__ = ["config_flag", "launch"]


def config_flag(kind: type) -> flags.FlagHolder[Any]:
    """Defines `--config`, a Python file whose `get_config()` makes a dataclass, and `--config.FIELD=...`.

    Args:
      kind: the dataclass.

    Example: see `launch/train.py`.
    """
    holder = config_flags.DEFINE_config_file(
        "config", help_string="a file with get_config(), such as configs/digits.py"
    )

    def check(config: Any) -> bool:
        if not isinstance(config, kind):
            path = config_flags.get_config_filename(flags.FLAGS[holder.name])
            cause = getattr(config, "_error", None) or f"{path}: get_config() made a {type(config).__name__}"
            about = "is missing" if not path else f"cannot be taken ({str(cause).splitlines()[0]})"
            raise flags.ValidationError(
                f"{about}; it must be a file whose get_config() makes a {kind.__name__}, such as configs/digits.py"
            )
        return True

    flags.register_validator(holder.name, check)
    return holder


def launch(main: Callable[[], Any]) -> None:
    """Parses the flags and runs `main`; what a user can put right ends in one sentence and an exit status.

    Args:
      main: the program; its `RunError` is printed and ends the process with status 1, or with its own exit_status.

    Example: see `launch/train.py`.
    """

    def run(arguments: list[str]) -> None:
        if flags.FLAGS["verbosity"].using_default_value:
            logging.set_verbosity(logging.WARNING)  # Orbax tells much
        if len(arguments) > 1:
            _stop(f"unknown argument {arguments[1]!r}; flags begin with --, as in --config.num_groups=8")
        try:
            main()
        except RunError as error:
            _stop(str(error), getattr(error, "exit_status", 1))

    app.run(run, flags_parser=_parse)


def _parse(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        _stop(str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # what ml_collections raises for overrides
        _stop(_about_override(str(error.args[0] if error.args else error)))


def _about_override(message: str) -> str:
    """A sentence with the nearest names, where a field is unknown."""
    unknown = re.search(r"Field (\w+) not found on dataclass", message)
    config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
    if unknown is None or not dataclasses.is_dataclass(config):
        return message.strip().splitlines()[-1]
    names = [field.name for field in dataclasses.fields(config)]
    return f"config has no field {unknown[1]!r}{_check.nearest(unknown[1], names)}"


def _stop(message: str, status: int = 1) -> Any:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
