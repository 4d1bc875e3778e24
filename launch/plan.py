"""`asyncflax plan` in a checkout; what it does is in asyncflax/commands/plan.py."""

import sys

from asyncflax.commands import run

if __name__ == "__main__":
    run("plan", sys.argv)
