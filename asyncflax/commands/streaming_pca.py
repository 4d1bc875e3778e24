"""Measures how much delay momentum tolerates in streaming PCA, and where asynchrony does not act as momentum.

    asyncflax streaming-pca --config=streaming_pca --workdir=runs/streaming_pca
    asyncflax streaming-pca --config=streaming_pca:fast --workdir=runs/streaming_pca-fast

Every field of asyncflax.lab.studies.streaming_pca.StreamingPcaConfig is a flag. The same command resumes an
interrupted study.
"""

from absl import flags

from asyncflax.commands._program import program
from asyncflax.lab.claims import portable
from asyncflax.lab.studies.streaming_pca import StreamingPcaConfig, run_study
from asyncflax.train import launcher

CONFIG = launcher.config_flag(StreamingPcaConfig, "streaming_pca")
WORKDIR = flags.DEFINE_string("workdir", None, "the folder of the study", required=True)


@program(StreamingPcaConfig)
def main() -> None:
    """Runs the study and prints its results."""
    command = portable(launcher.command(workdir="runs/streaming_pca"))
    study = run_study(CONFIG.value, WORKDIR.value, command=command)
    print(f"\n{study.table}\n\nfigure: {study.figure}\nclaims: {study.figure.parent / 'claims'}")
