"""placeholder"""

from asyncflax.config import TrainConfig


def get_config() -> TrainConfig:
    """The recipe."""
    return TrainConfig(
        dataset="cifar10",
        model="Cifar10Quick",
        pixel_scale=1.0,
        batch_size=100,
        num_updates=5000,
        learning_rate=0.001,
        learning_rate_drops=(0.8,),
        momentum=0.9,
        weight_decay=0.004,
        bias_multiplier=2.0,
        log_every=50,
        eval_every=500,
        checkpoint_every=500,
    )
