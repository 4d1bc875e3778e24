"""`asyncflax theory` in a checkout, see asyncflax/commands/theory.py."""

import _command

if __name__ == "__main__":
    _command.run("theory")
