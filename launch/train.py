"""`asyncflax train` in a checkout, see asyncflax/commands/train.py."""

import _command

if __name__ == "__main__":
    _command.run("train")
