"""The language of configs: what is read, what is refused and with which sentence."""

import dataclasses
import json
import sys

import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncflax
from asyncflax import models, queues
from asyncflax.lab.compare import CompareConfig
from asyncflax.lab.sweep import SweepConfig
from asyncflax.train import asynchrony, options, workdir
from asyncflax.train.asynchrony import Asynchrony
from asyncflax.train.config import TrainConfig
from asyncflax.train.workdir import Workdir, differences

METHODS = options.makers(asyncflax.algorithms, asyncflax.AsyncAlgorithm)
KINDS = options.makers(asynchrony, Asynchrony)
LAWS = options.makers(queues, queues.ServiceTime)


@pytest.mark.parametrize(
    "text, found",
    [
        ("dc_asgd", {}),
        (" dc_asgd ( ) ", {}),
        ("dc_asgd(strength=0.04)", {"strength": 0.04}),
        (
            "dc_asgd(strength = 1 , curvature=absolute, form='outside')",
            {"strength": 1.0, "curvature": "absolute", "form": "outside"},
        ),
        ("dc_asgd(strength=-1e-3)", {"strength": -1e-3}),
    ],
)
def test_options_are_typed_by_the_signature(text, found):
    spec = options.read("field", text, METHODS)
    assert spec.options == found and [type(v) for v in spec.options.values()] == [type(v) for v in found.values()]
    assert options.read("field", str(spec), METHODS) == spec


def test_calls_are_nested_where_something_is_to_be_made():
    text = "queue(service_time=stragglers(share=0.5, service_time=exponential), max_staleness=3, policy=discard)"
    spec = options.read("field", text, KINDS)
    law = spec.options["service_time"]
    assert (spec.options["max_staleness"], spec.options["policy"]) == (3, "discard")
    assert str(law) == "stragglers(share=0.5, service_time=exponential())"
    made = spec.make(num_workers=4, num_updates=20, seed=1)
    direct = queues.stragglers(share=0.5, service_time=queues.exponential())
    twin = queues.simulate(
        num_workers=4, num_updates=20, service_time=direct, seed=1, max_staleness=3, policy="discard"
    )
    assert (made.trace.worker == twin.worker).all() and (made.trace.read_version == twin.read_version).all()


def test_a_queue_has_a_server_and_the_measured_times_of_a_trace(tmp_path):
    saved = queues.simulate(num_workers=4, num_updates=90, service_time=queues.stragglers())
    saved.save(tmp_path / "trace.npz")
    text = f"queue(service_time=measured(trace='{tmp_path}/trace.npz'), server_time=deterministic(mean=0.5))"
    made, law = options.read("field", text, KINDS).make(num_workers=4, num_updates=20, seed=1)
    times = {"service_time": queues.measured(saved), "server_time": queues.deterministic(0.5)}
    twin = queues.simulate(num_workers=4, num_updates=20, seed=1, **times)
    assert (made.time == twin.time).all() and (made.begun == twin.begun).all() and law is None
    exponential = "queue(service_time=exponential, link_time=deterministic(mean=0.5))"
    assert options.read("field", exponential, KINDS).make(num_workers=4, num_updates=20, seed=1).law is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("dc_asgd(strenght=0.04)", r"dc_asgd has no option 'strenght', got .*; did you mean 'strength'\? Options: "),
        ("dc_asgd(learning_rate=1)", r"learning_rate of dc_asgd is set by a field of its own"),
        ("dc_asgd(strength=strong)", r"strength must be of type float, got 'strong'"),
        ("dc_asgd(0.04)", r"dc_asgd takes keyword arguments, as in 'dc_asgd\(\w+=\.\.\.\)', got 'dc_asgd\(0\.04\)'"),
        ("dc_asgd(strength=)", r"must be like 'NAME\(option=value\)'"),
        ("dc_asgd(strength=__import__('os').getcwd())", r"strength must be"),
        ("dc_asgd(strength=[x for x in y])", r"strength must be a number, a word, a call, or quoted text"),
        ("dc_asgd(**{})", r"must be like"),
        ("dc_asgd(strength=1, strength=2)", r"must be like"),
        ("dc_asgd(strength=1)(form=outside)", r"must be like"),
        ("dc_asgd; asgd", r"must be like"),
        ("dc-asgd", r"must be one of .* got 'dc-asgd'; did you mean 'dc_asgd'"),
        ("3", r"must be one of|must name something"),
        ("'dc_asgd'", r"must name something, as in 'NAME\(option=value\)'"),
        ("", r"must be like"),
        ("optax.adamww", r"field: optax has no 'adamww'; did you mean 'adamw'"),
        ("no_such_module_here.method", r"no module 'no_such_module_here' .*neither installed nor as no_such"),
        ("optax.__version__", r"optax\.__version__ must be a function or a class"),
        ("optax.adamw(b3=0.9)", r"optax\.adamw has no option 'b3', .* Options: b1, b2, "),
    ],
)
def test_bad_texts_are_one_clear_error(text, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        options.read("field", text, METHODS, given=["learning_rate"])
    assert "\n" not in str(error.value) and str(error.value).startswith("field")


def test_paths_are_in_quotes():
    assert options.read("field", "recorded(path='a/b.npz')", KINDS).options == {"path": "a/b.npz"}
    with pytest.raises(ValueError, match=r"field: path must be .* quoted text such as a path"):
        options.read("field", "recorded(path=a/b.npz)", KINDS)


def test_what_is_lacking_or_refused_is_named_with_its_field():
    with pytest.raises(
        ValueError, match=r"field: law needs distribution, as in 'law\(distribution=\.\.\.\)', got 'law"
    ):
        options.read("field", "law", KINDS).make(num_workers=1, num_updates=2, seed=0)
    with pytest.raises(ValueError, match=r"field='gamma\(cv=-1\.0\)': cv must be finite"):
        options.read("field", "gamma(cv=-1)", LAWS).make()
    with pytest.raises(TypeError, match=r"field: distribution must be a call of one of constant, .* got 7"):
        options.read("field", "law(distribution=7)", KINDS)


def test_options_of_classes():
    networks = {name: getattr(models, name) for name in ("SmallCnn", "Cifar10Quick")}
    assert options.read("field", "SmallCnn(dropout=0.5)", networks).options == {"dropout": 0.5}
    assert options.read("field", "Cifar10Quick(conv=im2col)", networks).options == {"conv": "im2col"}
    with pytest.raises(ValueError, match=r"SmallCnn has no option 'droput'.*did you mean 'dropout'"):
        options.read("field", "SmallCnn(droput=0.5)", networks)


def test_dotted_names_are_imported_and_their_source_is_known():
    spec = options.read("field", "optax.adamw(b1=0.8)", METHODS)
    assert spec.function is optax.adamw and list(spec.sources()) == ["optax"]
    assert options.read("field", "asgd", METHODS).sources() == {}


VALUES = st.recursive(
    st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab c,=('\"", max_size=5),
    lambda inner: st.tuples(inner, inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["momentum", "seed", "a", "b_2"]), VALUES, max_size=3))
def test_items_are_the_same_as_a_mapping_and_as_a_text(items):
    text = ", ".join(f"{label}={value!r}" for label, value in items.items())
    assert options.parse_items("field", text) == options.parse_items("field", items) == list(items.items())
    assert options.plain_items(text) == options.plain_items(items)


def test_items_keep_their_order_and_are_split_outside_of_brackets():
    text = "mild=ormo(momentum=0.5, late_step='a,b'), asgd, own = my.method(x=(1, 2)) , late=(a, 'b c')"
    assert options.parse_items("field", text) == [
        ("mild", "ormo(momentum=0.5, late_step='a,b')"),
        ("", "asgd"),
        ("own", "my.method(x=(1, 2))"),
        ("late", ("a", "b c")),
    ]
    assert options.parse_items("field", ("asgd", "ormo")) == [("", "asgd"), ("", "ormo")]
    with pytest.raises(TypeError, match="field must be a mapping, a tuple or text, got 3"):
        options.parse_items("field", 3)
    for bad in ("momentum=(0, 0.3", "momentum=0 0.3", "a=b=c"):
        with pytest.raises(ValueError, match="field must be like"):
            options.parse_items("field", bad)


@given(st.sampled_from([*METHODS, "my.own"]), st.dictionaries(st.sampled_from(["a", "b"]), st.integers(-9, 9)))
def test_spelling_does_not_count(name, given_options):
    inside = [f"{k}={v!r}" for k, v in given_options.items()]
    loose = f" {name} ( {' , '.join(reversed(inside))} ) " if inside else f" {name} "
    assert options.plain_call(loose) == options.plain_call(f"{name}({', '.join(inside)})")


def test_what_means_the_same_and_what_does_not():
    same = [
        ("dc_asgd(strength=1)", "dc_asgd( strength = 1.0 )"),
        ("asgd", "asgd()"),
        ("momentum_asgd(form=outside, nesterov=True)", "momentum_asgd(nesterov=True, form='outside')"),
        ("queue(service_time=gamma)", "queue(service_time=gamma())"),
        ("recorded(path='a.npz')", "recorded(path='b.npz')"),
    ]
    other = [("asgd", "ssgd"), ("dc_asgd(strength=1)", "dc_asgd(strength=2)"), ("a(b=True)", "a(b=1)")]
    assert all(options.plain_call(one) == options.plain_call(two) for one, two in same)
    assert not any(options.plain_call(one) == options.plain_call(two) for one, two in other)
    axes = [("algorithm=(dc_asgd( strength=1),), seed=(0,)", {"algorithm": ["dc_asgd(strength=1.0)"], "seed": [0]})]
    assert all(options.plain_items(one) == options.plain_items(two) for one, two in axes)


def test_a_dotted_name_of_the_library_is_the_librarys():
    spec = options.read("field", "asyncflax.algorithms.dc_asgd(strength=2)", METHODS, given_imported=())
    assert (spec.name, spec.sources()) == ("dc_asgd", {})
    assert options.read("field", "asyncflax.local.local_sgd", METHODS).sources() == {}  # it has a version
    assert options.read("field", "asyncflax.train.asynchrony.recorded(path='a')", KINDS).name == "recorded"
    with pytest.raises(ValueError, match="learning_rate of dc_asgd is set by a field of its own"):
        options.read("field", "asyncflax.algorithms.dc_asgd(learning_rate=2)", METHODS, ["learning_rate"])


@pytest.mark.parametrize(
    "text",
    ["(" * 400 + "asgd" + ")" * 400, "dc_asgd(strength=1e999)", "asgd(" + "-" * 3000 + "1)", "law(distribution=None)"],
)
def test_odd_texts_are_one_clear_error(text):
    with pytest.raises((TypeError, ValueError)) as error:
        options.read("field", text, METHODS | KINDS)
    assert str(error.value).startswith("field")


def test_quotes_in_quotes_do_not_split_items():
    assert options.parse_items("field", r"momentum='\'\",', seed=1") == [("momentum", "'\","), ("seed", 1)]


FIELDS = {
    kind: [field for field in dataclasses.fields(kind) if isinstance(field.default, str | tuple)]
    for kind in (TrainConfig, SweepConfig, CompareConfig)
}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "text",
    [
        "stranger.run(x=1)",
        "stranger.run",
        "queue(service_time=stranger.run(x=1))",
        "label=stranger.run(x=1), other=stranger.run",
        "__import__('stranger')",
        "[stranger for x in y]",
    ],
)
def test_what_a_run_folder_names_is_compared_and_never_imported(kind, text, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise SystemExit('this has run')")
    monkeypatch.syspath_prepend(tmp_path)
    config, names = kind(), [field.name for field in FIELDS[kind] if not field.metadata.get("free")]
    began = json.loads(json.dumps(dataclasses.asdict(config)))
    for name in names:
        assert len(differences({**began, name: text}, config)) == 1
    with Workdir(tmp_path / "run", config).owned() as folder:
        folder.begin()
    about = {**folder.began, "config": {**began, **dict.fromkeys(names, text)}}
    about["sha256"] = workdir._digest(workdir._text(about))
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="holds a run of another config"):
        Workdir(tmp_path / "run", config)
    assert names and "stranger" not in sys.modules
