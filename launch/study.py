"""`asyncflax study` in a checkout, see asyncflax/commands/study.py."""

import _command

if __name__ == "__main__":
    _command.run("study")
