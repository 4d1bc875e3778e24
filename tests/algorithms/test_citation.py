"""Every method names a paper, and every paper has its entry."""

import re

import optax
import pytest

import asyncflax
from asyncflax import algorithms
from asyncflax.algorithms._citation import _documentation, _entries
from asyncflax.lab.compare import CompareConfig
from asyncflax.train.config import TrainConfig


def papers(text):
    return re.findall(r"(?:arXiv|doi):\s*([^\s),;]+[0-9])", text)


@pytest.mark.parametrize("name", algorithms.__all__)
def test_every_method_cites_papers_that_have_an_entry(name):
    named = papers(_documentation(name))
    assert named, f"the docstring of {name} names no paper as (arXiv:NUMBER) or (doi:NUMBER)"
    lacking = set(named) - set(_entries())
    assert not lacking, f"the docstring of {name} names {lacking}; add them to asyncflax/algorithms/citations.bib"
    text = asyncflax.citation(name)
    assert all(text.count(f"{{{paper}}}") == 1 for paper in named)
    assert text.startswith("@") and text.count("@") == len(set(named) | {"1605.09774"})


def test_entries_are_whole():
    for paper, entry in _entries().items():
        assert re.match(r"@(article|inproceedings)\{\w+,\n", entry) and entry.endswith("\n}"), paper
        assert entry.count("{") == entry.count("}")
        for field in ("title", "author", "year"):
            assert re.search(rf"^  {field} = \{{.+\}},$", entry, re.MULTILINE), (paper, field)


def test_configs_algorithms_and_names_are_the_same_to_it():
    expected = asyncflax.citation("ormo")
    assert asyncflax.citation(TrainConfig(algorithm="ormo")) == expected
    assert asyncflax.citation(algorithms.ormo) == asyncflax.citation(algorithms.ormo(0.1, num_workers=2)) == expected
    both = asyncflax.citation("ormo", "dana_slim", "ormo")
    assert both.startswith(expected) and both.count("@") == 3


def test_a_method_behind_a_transformation_of_gradients_is_found():
    clipped = asyncflax.transform_gradients(optax.clip(1.0), algorithms.ormo(0.1, num_workers=2))
    twice = asyncflax.transform_gradients(optax.clip(2.0), clipped)
    assert asyncflax.citation(clipped) == asyncflax.citation(twice) == asyncflax.citation("ormo")
    own = asyncflax.transform_gradients(optax.clip(1.0), asyncflax.from_optax(optax.sgd(0.1)))
    with pytest.raises(TypeError, match="citation accepts names of methods"):
        asyncflax.citation(own)


def test_a_comparison_stands_for_all_its_methods():
    config = CompareConfig(methods="ormo, mild=ormo(momentum=0.5), other=dana_dc(strength=2.0)")
    assert asyncflax.citation(config) == asyncflax.citation("ormo", "dana_dc")
    with pytest.raises(ValueError, match=r"config\.methods must be one of .* got 'ormoo'; did you mean 'ormo'"):
        asyncflax.citation(CompareConfig(methods="ormoo"))


def test_linear_weight_prediction_has_both_of_its_papers():
    assert "@inproceedings{kosson2021pipelined," in asyncflax.citation("lwp")


def test_what_is_unknown_is_refused():
    with pytest.raises(ValueError, match="citation: 'adam' is not a method; available: asgd, "):
        asyncflax.citation("adam")
    with pytest.raises(TypeError, match="citation accepts names of methods, functions, classes and configs, got 3"):
        asyncflax.citation(3)
