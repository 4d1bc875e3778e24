"""Momentum against delay in streaming PCA: Liu, Li, Shi, Zhou and Zhao 2018 (arXiv:1806.01660).

    python launch/streaming_pca.py --config=configs/streaming_pca.py --workdir=runs/streaming_pca

Asynchronous momentum SGD (Async-MSGD) from the saddle e_2, d = 4, Sigma = diag(4, 3, 2, 1), constant delays, 8,192
trajectories per setting in 16 independent replicates. Claim: more momentum tolerates less delay. The tolerable delay
costs at most 50 % more error after equal slow time; the optimal one reaches twice the error without delay in the
shortest time with tau + 1 workers. `asyncflax.lab.studies.streaming_pca` defines both. At step size 5e-4, with 95 %
intervals:

| momentum | tolerable | optimal | linear theory |
|---|---|---|---|
| 0.70 | 116.8 (116.7 to 116.9) | 121.4 (119.5 to 123.2) | 115.1 |
| 0.80 | 76.0 (75.9 to 76.1) | 78.2 (76.5 to 79.8) | 74.4 |
| 0.85 | 55.4 (55.3 to 55.5) | 57.2 (56.4 to 58.1) | 53.6 |
| 0.90 | 34.3 (34.3 to 34.3) | 35.9 (35.6 to 36.0) | 32.6 |
| 0.95 | 15.0 (14.9 to 15.0) | 16.6 (16.2 to 17.0) | 13.8 |

We have read only the abstract of the paper: problem, start and conditions are second-hand, the step sizes are our own
choice, and we do not have the paper's numbers. The exponent of the tolerable delay in (1 - mu):

| step size | fitted | linear theory |
|---|---|---|
| 5e-4 | 1.150 (1.149 to 1.152) | 1.191 |
| 2.5e-4 | 1.128 (1.128 to 1.129) | 1.153 |
| 1.25e-4 | 1.090 (1.089 to 1.091) | 1.103 |

The intervals cover chance alone: with 25 % or 100 % more error tolerated the first exponent is 1.113 and 1.123. Under
the conditions reportedly stated in the paper it is 2; linear theory tends to 1 as the step size falls.

Claim: asynchrony is not momentum in general. On quadratics 16 workers with exponential service times have the mean of
momentum 1 - 1/16 (Theorem 5 of Mitliagkas et al. 2016). Here, with step size 0.014, they end with 1.264 (1.259 to
1.270) times its error, and 16 workers in turn, with the same mean delay, with 1.602 (1.590 to 1.614) times. Only final
errors are compared: momentum SGD starts at rest. (Mean squares differ on quadratics too: `theory.stationary_variance`.)

About three minutes of CPU time, float32. `:fast` after the file name is one step size with fewer trajectories, in
about 15 seconds.
"""

from asyncflax.lab.studies.streaming_pca import StreamingPcaConfig


def get_config(variant: str = "") -> StreamingPcaConfig:
    """The config, or its variant 'fast'."""
    if variant not in ("", "fast"):
        raise ValueError(f"configs/streaming_pca.py has the variant 'fast', not {variant!r}.")
    fast = variant == "fast"
    return StreamingPcaConfig(
        # The problem.
        eigenvalues=(4.0, 3.0, 2.0, 1.0),
        stream="signs",
        # What is varied.
        momenta=(0.70, 0.80, 0.85, 0.90, 0.95),
        learning_rates=(5e-4,) if fast else (5e-4, 2.5e-4, 1.25e-4),
        # How many.
        replicates=5 if fast else 16,
        trajectories=64 if fast else 512,
        # Asynchrony against momentum.
        workers=16,
        asynchronous_learning_rate=0.014,
    )
