"""What the launchers share: a config flag with overrides, a workdir flag, and errors as one clear sentence.

    --config=configs/digits.py --config.num_groups=8 --workdir=runs/digits

Needs absl-py and ml-collections (the extra `train`).
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from asyncflax import _check
from asyncflax.workdir import RunError

__all__ = ["command", "config_flag", "launch"]


def config_flag(kind: type) -> flags.FlagHolder[Any]:
    """Defines `--config`, a Python file whose `get_config()` makes a dataclass, and `--config.FIELD=...`.

    Args:
      kind: the dataclass.

    Example: see `launch/train.py`.
    """
    return config_flags.DEFINE_config_file("config", help_string=f"a file {_wanted(kind)}")


def launch(main: Callable[[], Any], kind: type) -> None:
    """Parses the flags and runs `main`; what a user can put right ends in one sentence and an exit status.

    Args:
      main: the program; its `RunError` is printed and ends the process with status 1, or with its own exit_status.
      kind: the dataclass of the config.

    Example: see `launch/train.py`.
    """

    def run(arguments: list[str]) -> None:
        if len(arguments) > 1:
            _stop(f"unknown argument {arguments[1]!r}; flags begin with --, as in --config.num_groups=8")
        if not isinstance(flags.FLAGS.config, kind):
            path = config_flags.get_config_filename(flags.FLAGS["config"]) if flags.FLAGS["config"].present else None
            _stop(f"--config={path} cannot be read; it must be a file {_wanted(kind)}")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells much
        try:
            main()
        except RunError as error:
            _stop(str(error), getattr(error, "exit_status", 1))
        except KeyboardInterrupt:
            _stop("stopped; the same command goes on from the newest checkpoint", 130)

    def parse(arguments: list[str]) -> list[str]:
        try:
            return flags.FLAGS(arguments)
        except (flags.Error, KeyError, TypeError, ValueError, AttributeError) as error:
            return _stop(_about_flags(error, kind))

    app.run(run, flags_parser=parse)


def command(*, workdir: str, **fields: Any) -> str:
    """The command that was typed, with another folder and other fields of the config.

    Args:
      workdir: the folder.
      fields: of the config.

    Example: see `launch/train.py`.
    """
    config = flags.FLAGS["config"]
    overrides = {**config_flags.get_override_values(config), **fields}
    words = [f"--config.{name}={value}" for name, value in overrides.items()]
    file = next((word for word in sys.argv if word.startswith("--config=")), f"--config={config.value}")
    activated = shutil.which("python") == sys.executable
    python = "python" if activated else os.path.relpath(sys.executable)
    return shlex.join([python, sys.argv[0], file, *words, f"--workdir={workdir}"])


def _wanted(kind: type) -> str:
    return f"whose get_config() makes a {kind.__name__}, such as configs/digits.py"


def _about_flags(error: Exception, kind: type) -> str:
    """A sentence about what absl or ml_collections raised, with the nearest names where a field is unknown."""
    message = str(error.args[0] if error.args else error).strip()
    unknown = re.search(r"Field (\w+) not found on dataclass", message)
    if unknown:
        names = [field.name for field in dataclasses.fields(kind)]
        return f"config has no field {unknown[1]!r}{_check.nearest(unknown[1], names)}"
    if isinstance(error, flags.Error) and "Traceback" not in message:
        return message
    reason = message.splitlines()[-1].rstrip(".")
    return f"--config cannot be taken: {reason}; it must be a file {_wanted(kind)}"


def _stop(message: str, status: int = 1) -> Any:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
