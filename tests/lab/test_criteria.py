"""What claims are judged by is fixed beforehand: configs state their digests, and rows of results have these."""

import pathlib
import runpy
import shlex

import pytest

from asyncflax.lab import claims, compare, figures
from asyncflax.lab.compare import CompareConfig, Comparison
from asyncflax.lab.statistics import least_updates
from asyncflax.lab.sweep import Grid

ROOT = pathlib.Path(__file__).parents[2]
JUDGED = {
    "figure3": ("digits", "mlp", "small_cifar10"),
    "figure5": ("batch_1", "batch_8", "batch_64"),
    "negative_momentum": ("digits", "digits_16"),
    "orders": ("mlp", "mlp_short_steps", "mlp_16", "stragglers", "cnn", "cnn_short_steps", "cifar10"),
}
ALL = [(name, variant) for name, variants in JUDGED.items() for variant in variants]


def load(name):
    return runpy.run_path(str(ROOT / "configs" / f"{name}.py"))


def criteria(config):
    return compare.criteria(config) if isinstance(config, CompareConfig) else figures.criteria(config)


@pytest.mark.parametrize("name, variant", ALL)
def test_configs_state_what_they_judge_by(name, variant):
    module = load(name)
    config = module["get_config"](variant)
    digests = criteria(config).values()
    assert digests and all(digest[:12] in module["__doc__"] for digest in digests)


@pytest.mark.parametrize("name, variant", ALL)
def test_judged_trainings_outlast_the_memory_of_momentum(name, variant):
    config = load(name)["get_config"](variant)
    if isinstance(config, CompareConfig):
        workers, momentum = max(config.num_workers), config.train.momentum
    else:
        axes = config.axes
        workers, momentum = max(axes.get("num_workers", [config.train.num_workers])), max(axes["momentum"])
    assert config.train.num_updates >= least_updates(workers, momentum)


@pytest.mark.parametrize("name", JUDGED)
def test_small_variants_can_be_trained(name):
    config = load(name)["get_config"]("fast")
    if isinstance(config, CompareConfig):
        assert len(Comparison(config)) >= 12
    else:
        figures.check(config)
        assert len(Grid.of(config)) >= 12
    with pytest.raises(ValueError, match=rf"configs/{name}\.py has the variants .* not 'slow'"):
        load(name)["get_config"]("slow")


def test_rows_have_the_criteria_of_the_configs_that_their_commands_name():
    rows = 0
    for claim in claims.load_all(ROOT / "results"):
        words = shlex.split(claim.command)
        named = [word.removeprefix("--config=configs/") for word in words if word.startswith("--config=configs/")]
        name, _, variant = (named or [""])[0].partition(".py:")
        if name in JUDGED and not any(word.startswith("--config.") for word in words):
            assert claim.criterion in criteria(load(name)["get_config"](variant)).values(), claim.name
            assert claim.cpu_minutes > 0 and claim.seeds >= (6 if variant == "cifar10" else 16), claim.name
            rows += 1
    assert rows >= 20
