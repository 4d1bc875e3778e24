"""Asynchrony begets momentum, on scikit-learn's handwritten digits: the default, without a download.

    python launch/train.py --config=configs/digits.py --workdir=runs/digits

Claim: 8 asynchronous workers with exponential service times have 1 - 1/8 = 0.875 of implicit momentum (Mitliagkas et
al. 2016, arXiv:1605.09774, Theorem 5), so the usual explicit momentum of 0.9 is far too much; 0.3 is better. Test
accuracy after 2,000 updates of batch 32 with learning rate 0.2, means over the seeds 0, 1, 2:

| workers | momentum | test accuracy |
|---|---|---|
| 1 | 0.9 | 98.9 % |
| 8 | 0.9 | 10.8 % (chance is 10 %) |
| 8 | 0.6 | 96.4 % |
| 8 | 0.3 | 97.9 % |
| 8 | 0.0 | 94.7 % |
| 16 | 0.3 | 96.9 % |

A run takes 16 seconds on two cores, including startup and compilation. `:fast` after the file name selects 200 updates,
for a quick trial.
"""

from asyncflax.train.config import TrainConfig


def get_config(variant: str = "") -> TrainConfig:
    """The config, or its variant 'fast'."""
    if variant not in ("", "fast"):
        raise ValueError(f"configs/digits.py has the variant 'fast', not {variant!r}.")
    return TrainConfig(
        # Data and network.
        dataset="digits",
        model="SmallCnn",
        batch_size=32,
        # Asynchrony.
        num_workers=8,
        asynchrony="queue(service_time=exponential)",
        # The method.
        algorithm="momentum_asgd",
        learning_rate=0.2,
        momentum=0.3,
        # The run.
        num_updates=200 if variant == "fast" else 2000,
        log_every=20,
        eval_every=100,
        checkpoint_every=200,
    )
