"""`asyncflax streaming-pca` in a checkout, see asyncflax/commands/streaming_pca.py."""

import _command

if __name__ == "__main__":
    _command.run("streaming-pca")
