"""`asyncflax claims` in a checkout; what it does is in asyncflax/commands/claims.py."""

import sys

from asyncflax.commands import run

if __name__ == "__main__":
    run("claims", sys.argv)
