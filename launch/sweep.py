"""`asyncflax sweep` in a checkout, see asyncflax/commands/sweep.py."""

import _command

if __name__ == "__main__":
    _command.run("sweep")
