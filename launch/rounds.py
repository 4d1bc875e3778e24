"""`asyncflax rounds` in a checkout, see asyncflax/commands/rounds.py."""

import _command

if __name__ == "__main__":
    _command.run("rounds")
