"""`asyncflax compare` in a checkout, see asyncflax/commands/compare.py."""

import _command

if __name__ == "__main__":
    _command.run("compare")
