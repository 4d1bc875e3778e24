"""`asyncflax streaming-pca` in a checkout; what it does is in asyncflax/commands/streaming_pca.py."""

import _stop  # isort: skip  # noqa: F401

import sys

from asyncflax.commands import run

if __name__ == "__main__":
    run("streaming-pca", sys.argv)
