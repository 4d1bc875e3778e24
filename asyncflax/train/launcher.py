"""Shared by the commands: a config flag with overrides, a workdir flag, and one-line errors.

    --config=digits --config.num_workers=8 --workdir=runs/digits

Example:
  >>> from asyncflax.train import TrainConfig, launcher
  >>> def run():  # a command of one's own
  ...     config = launcher.config_flag(TrainConfig)
  ...     launcher.process_flags()
  ...     def main():
  ...         launcher.use_cache("programs")
  ...         print(config.value, launcher.command(workdir="again"))
  ...     launcher.launch(main, TrainConfig)
  >>> (launcher.config_folder() / "digits.py").is_file()
  True
  >>> launcher.numbers("num_workers", ["1", "8"], int), launcher.service_time("gamma(cv=0.5)")
  ([1, 8], gamma(cv=0.5, mean=1.0))
  >>> launcher.refuse_folder("workdir", "/dev/null/runs")
  Traceback (most recent call last):
    ...
  asyncflax.errors.RunError: --workdir='/dev/null/runs' is not writable (Not a directory: /dev/null); \
take another folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import select
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from absl import app, flags, logging
from jax.errors import JaxRuntimeError
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import config_flags

from asyncflax import _check, queues
from asyncflax.errors import RunError, of_system
from asyncflax.train import distributed
from asyncflax.train._help import describe
from asyncflax.train.options import Items, makers, read

__all__ = [
    "command",
    "config_flag",
    "config_folder",
    "launch",
    "numbers",
    "plain",
    "process_flags",
    "refuse_folder",
    "service_time",
    "use_cache",
]


class _AsItIs(flags.ArgumentParser):
    """Accepts text as well as the mapping or tuple in a config."""

    def parse(self, argument: Any) -> Any:
        return argument


config_flags.register_flag_parser_for_type(Items, _AsItIs())  # pyright: ignore[reportArgumentType]
_CONFIG = ("--config", "-config")
_FOLDERS = ("TFDS_DATA_DIR", "XDG_CACHE_HOME", "HOME")  # variables that locate data and caches
_EXAMPLES: dict[type, str] = {}  # the name of an example config by kind, for error messages


def config_folder() -> pathlib.Path:
    """The folder of the configs that --config takes by name.

    It is in the package, or in the checkout from which the package was installed.
    """
    package = pathlib.Path(__file__).parents[1]
    return next((path for path in (package / "configs", package.parent / "configs") if path.is_dir()), package)


def _located(before: str, argument: str) -> str:
    """Replaces a config's name, as in --config=figure3:digits, by its path; returns any other argument unchanged."""
    flag, equals, value = (before, "", argument) if before in _CONFIG else argument.partition("=")
    name, colon, variant = value.partition(":")
    if flag not in _CONFIG or not name or name.endswith(".py") or "/" in name or os.sep in name:
        return argument
    path = config_folder() / f"{name}.py"
    if not path.is_file():
        names = sorted(path.stem for path in config_folder().glob("*.py"))
        raise flags.Error(
            f"unknown config {name!r}{_check.nearest(name, names)} "
            "'asyncflax list configs' lists all (a path must end in .py)"
        )
    return f"{flag if equals else ''}{equals}{path}{colon}{variant}"


def config_flag(kind: type, example: str = "digits") -> flags.FlagHolder[Any]:
    """Defines `--config`, a config by name or a Python file whose `get_config()` returns a dataclass, and its fields.

    Args:
      kind: the dataclass.
      example: the name of a config of this kind.
    """
    _EXAMPLES[kind] = example
    return config_flags.DEFINE_config_file("config", help_string=f"a file {_wanted(kind)}")


def process_flags() -> None:
    """Defines the flags with which `launch` connects several processes.

    They are the arguments of `distributed.start`.
    """
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; by default $JAX_COORDINATOR_ADDRESS")
    flags.DEFINE_integer("num_processes", None, "number of processes; by default $JAX_NUM_PROCESSES, or the cluster's")
    flags.DEFINE_integer("process_id", None, "id of this process, from 0; by default $JAX_PROCESS_ID, or the cluster's")


def launch(main: Callable[[], Any], kind: type | None = None, *, needs_device: bool = True) -> None:
    """Parses the flags and runs `main`; errors that a user can fix become one line and an exit status.

    Args:
      main: the program. A `RunError` is printed and exits with status 1, or with its own exit_status; so do lack of
        memory, a full disk and errors of JAX's backends. Ctrl-C exits with 130 unless `main` handles it, a closed
        standard output with 141.
      kind: the dataclass of the config; None for a program without --config.
      needs_device: whether to fail before `main` if JAX finds no device.
    """

    def run(arguments: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax logs a lot
            logging.get_absl_logger().addFilter(lambda record: not record.exc_info)  # which are raised anyway
        if "coordinator" in flags.FLAGS:
            _start_processes()
        if len(arguments) > 1:
            example = "config.num_workers=8" if kind else "help"
            _stop(f"unknown argument {arguments[1]!r}; flags begin with --, as in --{example}")
        if kind and not isinstance(flags.FLAGS.config, kind):
            flag = flags.FLAGS["config"]
            what = f"cannot load --config={config_flags.get_config_filename(flag)}" if flag.present else "no --config"
            _stop(f"{what}; expected a Python file {_wanted(kind)}")
        try:
            _refuse_names_that_are_not_utf8()
            if needs_device:
                _refuse_no_device()
            main()
        except Exception as error:
            if _nobody_reads():
                raise BrokenPipeError from error
            message = _about(error)
            if message is None:
                raise
            _stop(_of_flags(message, kind), getattr(error, "exit_status", 1))

    def parse(arguments: list[str]) -> list[str]:
        try:
            if any(argument in ("--help", "-help", "-h", "--helpfull", "--helpshort") for argument in arguments[1:]):
                print(describe(sys.modules[main.__module__], kind))
                sys.exit(0)
            return flags.FLAGS([arguments[0], *map(_located, arguments, arguments[1:])])
        except (flags.Error, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            return _stop(_about_flags(error, kind) if kind else str(error.args[0] if error.args else error))
        except Exception as error:  # raised by the code of a config
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = "" if isinstance(error, SyntaxError) else f" ({place.filename}, line {place.lineno})"
            return _stop(f"cannot load --config: {type(error).__name__}: {' '.join(str(error).split())}{where}")

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        hint = "; rerun the same command to resume" if kind else ""
        signal.signal(signal.SIGINT, functools.partial(_interrupted, f"error: stopped{hint}\n".encode()))
    with _pipe():
        app.run(run, flags_parser=parse)


def plain(main: Callable[[list[str]], Any], arguments: list[str], doc: str | None) -> None:
    """Runs a program that takes names instead of flags, with errors as in `launch`.

    Args:
      main: called with the names.
      arguments: the command line.
      doc: the text of --help.

    Example: see `asyncflax.commands.list`.
    """
    if any(argument.startswith("-") for argument in arguments):
        if not any(argument in ("--help", "-help", "-h") for argument in arguments):
            _stop(f"unknown flag {' '.join(arguments)!r}; see --help")
        print(doc)
        sys.exit(0)
    try:
        with _pipe():
            main(arguments)
    except ValueError as error:
        _stop(str(error))


def command(*, workdir: str, **fields: Any) -> str:
    """The current command with another workdir and other config fields.

    Args:
      workdir: the workdir.
      fields: the values of config fields; None omits a field.
    """
    config = flags.FLAGS["config"]
    overrides = {**config_flags.get_override_values(config), **fields}
    words = [f"--config.{name}={value}" for name, value in overrides.items() if value is not None]
    typed = config_flags.get_config_filename(config)
    path, colon, variant = typed.partition(":")
    if pathlib.Path(path).parent == config_folder():
        typed = f"{pathlib.Path(path).stem}{colon}{variant}"
    file = f"--config={typed}"
    if not sys.argv[0].endswith(".py"):
        return shlex.join([*sys.argv[0].split(), file, *words, f"--workdir={workdir}"])
    activated = shutil.which("python") == sys.executable
    python = "python" if activated else os.path.relpath(sys.executable)
    return shlex.join([python, sys.argv[0], file, *words, f"--workdir={workdir}"])


def numbers(name: str, texts: Sequence[str] | None, kind: Callable[[str], Any]) -> list[Any] | None:
    """Converts the values of a list flag, such as --num_workers=1,2,4, to numbers; None if it is not given.

    Args:
      name: the name of the flag.
      texts: the values.
      kind: int or float.

    Raises:
      ValueError: a value is not a number.
    """
    if texts is None:
        return None
    try:
        return [kind(text) for text in texts]
    except ValueError:
        raise ValueError(f"--{name} must be a list of numbers such as 1,2,4, got {','.join(texts)!r}.") from None


def service_time(text: str | None) -> queues.ServiceTime | None:
    """The service time named by --service_time; None if the flag is not given.

    Args:
      text: the flag's value, for example 'heterogeneous_gamma(machine_cv=0.6)'.

    Raises:
      TypeError, ValueError: the service time or an option is unknown.
    """
    return None if text is None else read("--service_time", text, makers(queues, queues.ServiceTime)).make()


def refuse_folder(flag: str, folder: str | os.PathLike[str]) -> None:
    """Raises if a folder is not writable; creates nothing.

    Args:
      flag: the name of the flag, for the message.
      folder: the folder, which need not exist.

    Raises:
      RunError: the path is a file or not writable.
    """
    path, named = pathlib.Path(folder).absolute(), f"--{flag}={os.fspath(folder)!r}"
    if path.exists() and not path.is_dir():
        raise RunError(f"{named} is a file; take a folder or a new name.")
    parent = next(place for place in (path, *path.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise RunError(f"{named} is not writable ({error.strerror}: {parent}); take another folder.") from error


def use_cache(folder: str | os.PathLike[str] | None) -> None:
    """Enables JAX's persistent compilation cache in a folder.

    Programs are keyed by their computation, the device and the version of JAX. Any number of runs can share a folder,
    on machines of one kind; it grows, and can be deleted at any time. JAX executes what is in it, so share it only with
    people you trust.

    Args:
      folder: the folder, created if missing; None or '' is a no-op.

    Raises:
      RunError: the path is a file or not writable.
    """
    if not folder:
        return
    refuse_folder("compilation_cache", folder)
    path = pathlib.Path(folder).absolute()
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small programs delay startup too
    compilation_cache.reset_cache()  # otherwise JAX keeps using a folder that it has already opened


@contextlib.contextmanager
def _pipe() -> Iterator[None]:
    """Exits with status 141 if the reader of standard output has closed it, as after `| head`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(141)  # 128 + SIGPIPE, as in shells


def _start_processes() -> None:
    """Connects the processes; only the primary prints."""
    try:
        distributed.start(flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        _stop(str(error))
    if not distributed.is_primary():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # silences libraries as well


def _interrupted(message: bytes, number: int, frame: Any) -> None:
    """Exits at once: files are written atomically, and a KeyboardInterrupt may be lost in JAX's callbacks."""
    del number, frame
    os.write(2, message)
    os._exit(130)


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has closed it."""
    if not hasattr(select, "poll"):  # on Windows
        return False
    poll = select.poll()
    poll.register(1, 0)
    return bool(poll.poll(0))


def _refuse_names_that_are_not_utf8() -> None:
    """Raises for paths that JSON, Orbax or the terminal cannot write."""
    words = [(f"argument {word!a}", word) for word in sys.argv]
    words += [(f"{name}={os.environ[name]!a}", os.environ[name]) for name in _FOLDERS if name in os.environ]
    try:
        words += [(f"the working folder {os.getcwd()!a}", os.getcwd())]
    except FileNotFoundError:
        raise RunError("the working folder has been removed; change to another one.") from None
    for what, text in words:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RunError(f"{what} is not UTF-8; rename the file or folder.") from None


def _refuse_no_device() -> None:
    """Raises a RunError if JAX finds no device."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        wanted = f" on JAX_PLATFORMS={platforms}" if platforms else ""
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise RunError(
            f"JAX cannot start{wanted}{why}; set JAX_PLATFORMS=cpu, or install what the device needs (for NVIDIA GPUs "
            "their driver and pip install 'asyncflax[cuda13]')."
        ) from error


def _about(error: Exception) -> str | None:
    """A sentence for errors that a user can fix; None for bugs, which keep their traceback."""
    if isinstance(error, RunError):
        return str(error)
    try:
        _refuse_no_device()
    except RunError as no_device:
        return str(no_device)
    reason = " ".join(str(of_system(error) or error).split())
    if of_system(error):
        return reason
    if isinstance(error, MemoryError) or (isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" in reason):
        return f"out of memory ({reason or 'of the host'}); reduce batch size, width, model or workers."
    if isinstance(error, JaxRuntimeError):
        return f"JAX: {reason}"
    return None


def _wanted(kind: type) -> str:
    return f"whose get_config() returns a {kind.__name__}, such as {_EXAMPLES.get(kind, 'digits')}"


def _about_flags(error: Exception, kind: type) -> str:
    """A sentence for an error of absl or ml_collections, with the nearest names of an unknown field."""
    message = str(error.args[0] if error.args and not isinstance(error, OSError) else error).strip()
    unknown = re.search(r"Field (\w+) not found on dataclass|Attribute <class .*>\.(\w+) does not exist", message)
    if unknown:
        name = unknown[1] or unknown[2]
        names = [field.name for one in (kind, *_nested(kind).values()) for field in dataclasses.fields(one)]
        return f"config has no field {name!r}{_check.nearest(name, names)}"
    if isinstance(error, flags.Error) and "Traceback" not in message:
        return message
    reason = message.splitlines()[-1].rstrip(".")
    return f"cannot load --config: {reason}; expected a Python file {_wanted(kind)}"


def _of_flags(message: str, kind: type | None) -> str:
    """The message with nested fields named as their flags: config.train.momentum."""
    if kind is None:
        return message
    prefix = {f.name: f"config.{name}." for name, one in _nested(kind).items() for f in dataclasses.fields(one)}
    prefix |= {field.name: "config." for field in dataclasses.fields(kind)}
    return re.sub(r"\bconfig\.(\w+)", lambda found: prefix.get(found[1], "config.") + found[1], message)


def _nested(kind: type) -> dict[str, type]:
    """The dataclasses nested in a dataclass, by field."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    return {name: one for name, one in types.items() if isinstance(one, type) and dataclasses.is_dataclass(one)}


def _stop(message: str, status: int = 1) -> Any:
    distributed.end(message, status)
