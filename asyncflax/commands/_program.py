"""What all commands share: flags, exit status and one-line errors."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable

from asyncflax.errors import RunError
from asyncflax.train import launcher


def program(
    kind: type | None = None, *, needs_device: bool = True, fixable: tuple[type[Exception], ...] = ()
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Decorates the `main` of a command: parses the flags and calls it, see `launcher.launch`.

    Args:
      kind: the dataclass of the config; None for a command without --config.
      needs_device: whether to fail before `main` if JAX finds no device.
      fixable: errors of `main` that the user can fix, printed in one line.
    """

    def decorate(main: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(main)
        def reporting() -> None:
            try:
                main()
            except fixable as error:
                raise RunError(str(error).replace("overwrite=True", "--overwrite")) from error

        return functools.partial(launcher.launch, reporting, kind, needs_device=needs_device)

    return decorate


def command(workdir: str) -> str:
    """The current command for use in claims, without an absolute path."""
    path = pathlib.Path(workdir)
    return launcher.command(workdir=f"runs/{path.name}" if path.is_absolute() else workdir)
