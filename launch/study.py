"""`asyncflax study` in a checkout; what it does is in asyncflax/commands/study.py."""

import _stop  # isort: skip  # noqa: F401

import sys

from asyncflax.commands import run

if __name__ == "__main__":
    run("study", sys.argv)
