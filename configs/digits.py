"""placeholder"""

from asyncflax.config import TrainConfig


def get_config() -> TrainConfig:
    """8 groups."""
    return TrainConfig(num_groups=8, num_updates=1000)
