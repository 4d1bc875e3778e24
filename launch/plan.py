"""`asyncflax plan` in a checkout, see asyncflax/commands/plan.py."""

import _command

if __name__ == "__main__":
    _command.run("plan")
