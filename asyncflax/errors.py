"""Errors that a user can put right."""

__all__ = ["RunError"]


class RunError(Exception):
    """What a user can put right: a bad config, the folder of another run, a diverged training. One clear sentence.

    Example: see `asyncflax.train.train_and_evaluate`.
    """
