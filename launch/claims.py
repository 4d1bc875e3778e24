"""`asyncflax claims` in a checkout, see asyncflax/commands/claims.py."""

import _command

if __name__ == "__main__":
    _command.run("claims")
