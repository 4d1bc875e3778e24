"""Errors that users can fix, and operating-system errors hidden behind others."""

from __future__ import annotations

import errno
import os
import re

__all__ = ["RunError", "of_system"]

_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}


class RunError(Exception):
    """An error that the user can fix: an invalid config, the folder of another run, a diverged run.

    Example: see `asyncflax.train.train_and_evaluate`.
    """


def of_system(error: BaseException | None) -> OSError | None:
    """Finds the operating-system error behind `error`, such as a full disk; None if there is none.

    Orbax wraps such errors, also in groups; TensorStore, which writes checkpoint arrays, raises a ValueError. An
    OSError is returned unchanged; for other errors, only disk-related causes are considered.

    Example:
      >>> from asyncflax.errors import of_system
      >>> of_system(ExceptionGroup("save", [OSError(28, "No space left on device", "x")]))
      OSError(28, 'No space left on device')
      >>> of_system(ValueError("Failed writing: x [os_error_code='28']")).strerror
      'No space left on device'
      >>> of_system(ValueError("anything else"))
    """
    if error is None or isinstance(error, OSError):
        return error
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for inner in (error.__cause__, error.__context__, *members):
        found = of_system(inner)
        if found is not None and found.errno in _OF_DISKS:
            return found
    stated = re.search(r"\[os_error_code='(\d+)'", str(error))
    return OSError(int(stated[1]), os.strerror(int(stated[1]))) if stated else None
