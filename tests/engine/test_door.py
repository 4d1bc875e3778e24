"""The door of `run`: what people bring along works, or is refused in one sentence; and no platform is shut out."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asyncflax
from asyncflax import algorithms, local

T, D = 4, 2
TRACE = asyncflax.staleness.constant(1).trace(num_updates=T)
PLAN = asyncflax.make_plan(TRACE)
PARAMS = np.zeros(D)
BATCHES = np.linspace(0.0, 1.0, T * D).reshape(T, D)
ASGD = algorithms.asgd(0.1)


def loss(params, batch):
    return jnp.sum((params - batch) ** 2)


def scaled(scale, params, batch):
    return scale * loss(params, batch)


GRADIENT = asyncflax.from_loss(loss)
run = functools.partial(asyncflax.run, ASGD, trace=TRACE)


# --- Callables that are PyTrees ---------------------------------------------------------------------------------------


@jax.tree_util.register_pytree_node_class
class Module:
    """As Equinox makes them: every field is a part of the tree, and the code branches on those that are no arrays."""

    def __init__(self, scale, function, repeat=1, squared=False):
        self.fields = (scale, function, repeat, squared)

    def tree_flatten(self):
        return self.fields, None

    @classmethod
    def tree_unflatten(cls, _, fields):
        return cls(*fields)

    def __call__(self, params, batch):
        scale, function, repeat, squared = self.fields
        value = sum(function(scale, params, batch) for _ in range(repeat))
        return value**2 if squared else value


@jax.tree_util.register_pytree_node_class
class ModuleGradient(Module):
    """As `equinox.filter_value_and_grad`: the gradient of a callable that it holds."""

    def __call__(self, params, batch):
        return jax.value_and_grad(self.fields[1])(params, batch)


STEP = optax.sgd(1.0)


def called(module, params, batch):
    return module(params, batch)


CALLABLES = {
    "gradient": lambda scale, of: ModuleGradient(None, Module(scale, of)),
    "loss": lambda scale, of: asyncflax.from_loss(Module(scale, of)),
    "value_and_grad": lambda scale, of: jax.value_and_grad(Module(scale, of)),
    "partial": lambda scale, of: asyncflax.from_loss(jax.tree_util.Partial(called, Module(scale, of))),
    "local": lambda scale, of: local.local_sgd(ModuleGradient(None, Module(scale, of)), STEP, steps=1),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_a_callable_pytree_runs_and_its_arrays_are_arguments(kind):
    traced = []

    def counted(scale, params, batch):
        traced.append(1)
        return scaled(scale, params, batch)

    batches = BATCHES[:, None] if kind == "local" else BATCHES  # one local step
    ends, counts = [], []
    for scale in (1.0, 1.0, 2.0):
        ends.append(run(CALLABLES[kind](jnp.asarray(scale), counted), PARAMS, batches=batches).params)
        counts.append(len(traced))
    want = [run(asyncflax.from_loss(jax.tree_util.Partial(scaled, s)), PARAMS, batches=BATCHES) for s in (1.0, 2.0)]
    np.testing.assert_allclose(ends, [want[0].params, want[0].params, want[1].params], rtol=1e-12)
    if kind != "value_and_grad":  # each call of that is another function
        assert counts[0] == counts[1] == counts[2]


def test_what_is_no_array_belongs_to_the_structure_of_a_callable():
    """Also numbers, on which its code may branch; but the numbers of a Partial are arguments."""
    module = asyncflax.base.as_partial(Module(jnp.ones(()), scaled, repeat=3, squared=True))
    assert [leaf.shape for leaf in jax.tree.leaves(module)] == [()]
    np.testing.assert_allclose(jax.jit(lambda f: f(PARAMS, BATCHES[1]))(module), 9 * loss(PARAMS, BATCHES[1]) ** 2)
    again = asyncflax.base.as_partial(Module(jnp.zeros(()), scaled, repeat=3, squared=True))
    other = asyncflax.base.as_partial(Module(jnp.ones(()), scaled, repeat=2, squared=True))
    assert jax.tree.structure(again) == jax.tree.structure(module) != jax.tree.structure(other)
    bound = asyncflax.from_loss(jax.tree_util.Partial(scaled, 2.0))
    assert jax.tree.leaves(bound) == jax.tree.leaves(asyncflax.base.as_partial(bound)) == [2.0]
    both = asyncflax.from_loss(jax.tree_util.Partial(scaled, 3.0, flag=True))
    assert jax.tree.leaves(both) == []
    both = asyncflax.from_loss(jax.tree_util.Partial(Module(2.0, scaled), jnp.ones(3)))
    assert jax.tree.leaves(both) == jax.tree.leaves(asyncflax.base.as_partial(both))
    with pytest.raises(TypeError, match=r"must be arrays or hashable \(unhashable type: 'set'\)"):
        asyncflax.from_loss(Module(jnp.ones(()), {1}))


def test_a_callable_pytree_receives_the_keywords_that_it_names():
    @jax.tree_util.register_pytree_node_class
    class Named(Module):
        def __call__(self, params, batch, *, event):
            return jnp.zeros(()) + event, jnp.zeros_like(params)

    np.testing.assert_array_equal(run(Named(jnp.ones(()), scaled), PARAMS, batches=BATCHES).losses, range(T))


def test_a_method_may_be_made_of_callable_pytrees_and_stays_a_tree():
    class Step(Module):
        def __call__(self, grads, state, params, **event):
            return -self.fields[0] * grads, state

    jax.tree_util.register_pytree_node(Step, Module.tree_flatten, lambda _, fields: Step(*fields))
    make = lambda rate: asyncflax.AsyncAlgorithm(lambda params: (), Step(jnp.asarray(rate), loss))
    want = run(GRADIENT, PARAMS, batches=BATCHES).params
    np.testing.assert_allclose(asyncflax.run(make(0.1), GRADIENT, PARAMS, TRACE, BATCHES).params, want, rtol=1e-12)
    for algorithm in (make(0.1), algorithms.momentum_asgd(0.1, 0.5)):
        shapes = jax.tree.map(lambda _: object(), algorithm)  # as JAX does with trees of specifications
        assert jax.tree.structure(shapes) == jax.tree.structure(algorithm)


# --- Parameters and batches -------------------------------------------------------------------------------------------

BAD_PARAMS = {
    "none": (None, r"params must be a PyTree of floating arrays, got None, which has no leaves"),
    "empty": ({}, r"params must be a PyTree of floating arrays, got \{\}"),
    "text": ("weights", r"params must be an array, got 'weights' \(str\)"),
    "text in a tree": ({"w": 1.0, "name": "net"}, r"params\['name'\] must be an array, got 'net'"),
    "function": ({"w": 1.0, "act": jnp.tanh}, r"params\['act'\] must be an array, .*nnx.state.model, nnx.Param"),
    "iterator": (iter([1.0]), r"params must be an array, got <list_iterator"),
    "text array": (np.array(["a"]), r"params must be an array, got array\(\['a'\]"),
    "integers": ({"w": np.arange(3)}, r"params\['w'\] must be real and floating, got int64\[3\]; convert it"),
    "integer": ((1.0, 2), r"params\[1\] must be real and floating, got 2; convert it to float"),
    "booleans": (np.ones(2, bool), r"params must be real and floating, got bool\[2\]"),
    "keys": ({"w": 1.0, "key": jax.random.key(0)}, r"params\['key'\] must be real and floating, got key<fry>\[\]"),
    "complex": (jnp.zeros(1, complex), r"got complex128\[1\]; JAX's gradient .* conjugate .* as two real leaves"),
    "complex number": ({"z": 1j}, r"params\['z'\] must be real and floating, got 1j; JAX's gradient"),
}


@pytest.mark.parametrize("params, message", BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_parameters_are_real_floating_arrays(params, message):
    for start in (
        lambda params: run(GRADIENT, params, batches=BATCHES),
        lambda params: asyncflax.init_run(ASGD, params, PLAN),
    ):
        with pytest.raises(TypeError, match=message):
            start(params)
    with pytest.raises(TypeError, match=r"model_state\['s'\] must be an array, got 'x'"):
        run(GRADIENT, PARAMS, batches=BATCHES, model_state={"s": "x"})


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, float])
def test_parameters_of_every_floating_type_begin(dtype):
    assert asyncflax.init_run(ASGD, {"w": jnp.ones(2, dtype), "rest": None}, PLAN).params["w"].dtype == dtype


BAD_BATCHES = {
    "iterator": (lambda: iter(BATCHES), TypeError, r"batches must be .* got <.*iterator .*with jax\.tree\.map"),
    "generator": (lambda: (x for x in BATCHES), TypeError, r"got <generator .* \(generator\); if it yields batches"),
    "iterator in a tree": (lambda: {"x": map(abs, BATCHES)}, TypeError, r"batches\['x'\] must be .* got <map object"),
    "range": (lambda: range(T), TypeError, r"got range\(0, 4\) \(range\); if it yields batches"),
    "text": (lambda: "rows", TypeError, r"batches must be .* each of the 4 events, got 'rows' \(str\)"),
    "text array": (lambda: np.array(list("rows")), TypeError, r"batches must be an array, got array\(\['r', 'o'"),
    "list": (lambda: [np.ones(3)] * T, ValueError, r"got a list of 4 batches; stack them"),
    "list of pairs": (lambda: [(np.ones(3), 1.0)] * T, ValueError, r"got a list of 4 batches; stack them"),
    "list of numbers": (lambda: [1.0] * T, ValueError, r"got a list of 4 batches; stack them"),
    "another library's": (lambda: Foreign(), TypeError, r"batches must be an array, got <.*Foreign .* JAX or NumPy"),
}


class Foreign:
    shape = (T, D)


@pytest.mark.parametrize("batches, error, message", BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_batches_are_arrays_with_a_row_an_event(batches, error, message):
    with pytest.raises(error, match=message):
        run(GRADIENT, PARAMS, batches=batches())
    with pytest.raises(error, match=message):
        asyncflax.run_chunk(ASGD, GRADIENT, asyncflax.init_run(ASGD, PARAMS, PLAN), PLAN[0], batches())


def test_no_batches_are_batches():
    gradient = lambda params, batch: (loss(params, 1.0), 2 * params)
    assert run(gradient, PARAMS, batches=None).losses.shape == (T,)


# --- Model state that would never move --------------------------------------------------------------------------------

STATE = {"mean": np.zeros(D)}
AUX = {
    "alone": lambda new: new,
    "in a tuple": lambda new: (jnp.ones(3), new),
    "in a dict": lambda new: {"accuracy": 1.0, "batch_stats": new},
}


@pytest.mark.parametrize("aux", AUX.values(), ids=AUX)
def test_a_model_state_that_is_only_reported_is_refused(aux):
    def with_aux(params, batch, model_state):
        return loss(params, batch), aux(jax.tree.map(lambda x: 0.9 * x + 0.1, model_state))

    bare = jax.value_and_grad(with_aux, has_aux=True)
    for gradient in (bare, asyncflax.from_loss(with_aux, has_aux=True)):
        with pytest.raises(ValueError, match=r"a new model_state in aux, .* never reaches the server; .*ModelUpdate"):
            run(gradient, PARAMS, batches=BATCHES, model_state=STATE)


def test_a_model_state_may_be_frozen_and_aux_may_look_like_a_part_of_it():
    def frozen(params, batch, model_state):
        return loss(params, batch), (model_state, asyncflax.ModelUpdate(1.0, jax.tree.map(jnp.zeros_like, model_state)))

    gradient = asyncflax.from_loss(frozen, has_aux=True, has_model_update=True)
    assert run(gradient, PARAMS, batches=BATCHES, model_state=STATE).aux["mean"].shape == (T, D)
    for aux, state in (({"other": jnp.ones(D)}, STATE), ({"accuracy": jnp.ones(())}, jnp.zeros(()))):
        reports = lambda params, batch, aux=aux: asyncflax.GradientResult(loss(params, batch), params, aux)
        run(reports, PARAMS, batches=BATCHES, model_state=state)


# --- Chunks -----------------------------------------------------------------------------------------------------------

BAD_CHUNKS = {
    "method": ({"algorithm": optax.sgd(0.1)}, TypeError, r"algorithm must be an AsyncAlgorithm .*from_optax"),
    "state": ({"state": PARAMS}, TypeError, r"state must be a RunState \(see asyncflax\.init_run"),
    "gradient": ({"gradient_fn": 3}, TypeError, r"gradient_fn must be a function"),
    "workers": (
        {"algorithm": algorithms.multi_asgd(0.1, 0.5, num_workers=2)},
        ValueError,
        r"the algorithm was built for num_workers=2, but the trace has worker 2",
    ),
    "workers of the gradient": (
        {"gradient_fn": local.local_sgd(GRADIENT, optax.sgd(0.1), steps=[1, 2])},
        ValueError,
        r"gradient_fn was built for num_workers=2, but the trace has worker 2",
    ),
    "another method": (
        {"algorithm": algorithms.momentum_asgd(0.1, 0.5)},
        ValueError,
        r"state\.algorithm must have the structure of the initial state of this method",
    ),
    "as many arrays of others": (
        {"algorithm": algorithms.multi_asgd(0.1, 0.5, num_workers=5), "of": algorithms.momentum_asgd(0.1, 0.5)},
        ValueError,
        r"state\.algorithm.* must have the (structure|shape) of the initial state of this method",
    ),
    "parameters": ({"params": np.zeros(3)}, ValueError, r"state\.slots\[0\] must have the shape of .*\(3,\)"),
    "key": ({"key": np.zeros(2, np.uint32)}, TypeError, r"state\.key must be a single typed key"),
}


@pytest.mark.parametrize("store", ["device", "host"])
@pytest.mark.parametrize("change, error, message", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_a_chunk_is_checked_as_a_run_is(change, error, message, store):
    trace = asyncflax.Trace(worker=[0, 1, 2, 0], read_version=[0, 0, 0, 1])
    plan = asyncflax.make_plan(trace, store=store)
    state = asyncflax.init_run(change.get("of", ASGD), PARAMS, plan)
    state = state._replace(**{name: change[name] for name in ("params", "key") if name in change})
    call = {"algorithm": ASGD, "gradient_fn": GRADIENT, "state": state}
    call |= {name: change[name] for name in call if name in change}
    with pytest.raises(error, match=message):
        asyncflax.run_chunk(**call, chunk=plan[0], batches=BATCHES)


# --- Optimizers -------------------------------------------------------------------------------------------------------

NO_METHODS = {
    "sam": (optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05)), r"needs a second gradient \(grad_fn\)"),
    "opaque sam": (optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), opaque_mode=True), r"needs a second gradient"),
    "lookahead": (optax.lookahead(optax.sgd(0.1), 2, 0.5), r"has a pair of parameters, fast and slow"),
    "lbfgs": (optax.lbfgs(), r"L-BFGS compares gradients at successive parameters .*value_fn"),
    "backtracking": (optax.scale_by_backtracking_linesearch(10), r"a line search evaluates the loss .*value_fn"),
    "zoom": (optax.scale_by_zoom_linesearch(10), r"a line search evaluates the loss .*value_fn"),
}


@pytest.mark.parametrize("tx, message", NO_METHODS.values(), ids=NO_METHODS)
def test_optimizers_that_want_more_than_a_gradient_are_refused(tx, message):
    wrapped = optax.chain(optax.clip(1.0), optax.masked(tx, True))
    for algorithm in (
        asyncflax.from_optax(tx),
        asyncflax.from_optax(wrapped),
        asyncflax.transform_gradients(tx, ASGD),
    ):
        with pytest.raises(TypeError, match=rf"tx cannot train asynchronously: .*{message}"):
            asyncflax.run(algorithm, GRADIENT, PARAMS, TRACE, BATCHES)


def test_multi_steps_are_taken_as_they_are():
    steps = optax.MultiSteps(optax.sgd(0.1), 2)
    want = PARAMS
    for pair in BATCHES.reshape(T // 2, 2, D):
        want = want - 0.1 * np.mean(2 * (want - pair), axis=0)
    fresh = asyncflax.staleness.constant(0).trace(num_updates=T)
    alone = asyncflax.transforms.per_worker(steps, num_workers=1)
    for algorithm in (
        asyncflax.from_optax(steps),
        asyncflax.from_optax(steps.gradient_transformation()),
        asyncflax.from_optax(alone),
        asyncflax.transform_gradients(optax.MultiSteps(optax.identity(), 2), asyncflax.algorithms.asgd(0.1)),
    ):
        result = asyncflax.run(algorithm, GRADIENT, PARAMS, fresh, BATCHES)
        np.testing.assert_allclose(result.params, want, rtol=1e-6)  # it accumulates in float32
    compensated = optax.MultiSteps(asyncflax.transforms.compensate_delay(0.1), 2)  # which needs to know the event
    asyncflax.run(asyncflax.from_optax(compensated), GRADIENT, PARAMS, fresh, BATCHES)


def test_an_optimizer_without_extra_arguments_compiles_once():
    tx, traced = optax.sgd(0.1), []
    plain = optax.GradientTransformation(tx.init, lambda g, state, params=None: tx.update(g, state, params))

    def counted(params, batch):
        traced.append(1)
        return loss(params, batch)

    counts = []
    for _ in range(2):
        algorithm = asyncflax.transform_gradients(plain, asyncflax.from_optax(plain))
        asyncflax.run(algorithm, asyncflax.from_loss(counted), PARAMS, TRACE, BATCHES)
        counts.append(len(traced))
    assert counts[0] == counts[1]


# --- Keys -------------------------------------------------------------------------------------------------------------


def noisy(params, batch, *, key):
    return loss(params, batch), jax.random.normal(key, params.shape)


def end(key=None, rate=0.1):
    return asyncflax.run(algorithms.asgd(rate), noisy, PARAMS, TRACE, BATCHES, key=key).params


def chunk_end(key):
    state = asyncflax.init_run(ASGD, PARAMS, PLAN, key=key)
    return asyncflax.run_chunk(ASGD, noisy, state, PLAN[0], BATCHES)[0].params


VMAPS = {
    "vmap": jax.vmap(end),
    "vmap of jit": jax.vmap(jax.jit(end)),
    "jit of vmap": jax.jit(jax.vmap(end)),
    "chunk": jax.vmap(chunk_end),
    "seeds": lambda keys: jax.vmap(lambda seed: end(jax.random.key(seed)))(jnp.arange(2)),
}


@pytest.mark.parametrize("vmapped", VMAPS.values(), ids=VMAPS)
def test_keys_that_depend_on_the_company_are_not_vmapped(vmapped):
    with jax.default_prng_impl("rbg"):
        keys = jax.random.split(jax.random.key(0), 2)
        with pytest.raises(ValueError, match=r"key, batched by jax\.vmap, uses the implementation rbg, .*threefry2x32"):
            vmapped(keys)


def test_keys_that_depend_on_the_company_are_not_for_wide_rounds():
    state = asyncflax.init_run(ASGD, PARAMS, PLAN, key=jax.random.key(0, impl="rbg"))
    wide = asyncflax.make_plan(TRACE, width=2)
    for key in (state.key, jax.random.key(0, impl="unsafe_rbg")):
        with pytest.raises(ValueError, match=r"state\.key uses the implementation .*rbg"):
            asyncflax.run_chunk(ASGD, noisy, state._replace(key=key), wide[0], BATCHES)


def test_keys_that_depend_on_the_company_may_stand_beside_a_grid():
    with jax.default_prng_impl("rbg"):
        grid = jax.vmap(lambda rate: end(rate=rate))(jnp.array([0.1, 0.2]))
        np.testing.assert_allclose(grid, [end(rate=0.1), end(rate=0.2)], rtol=1e-12)
        assert np.all(np.isfinite(jax.grad(lambda rate: end(rate=rate).sum())(0.1)))
    threefry = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_allclose(jax.vmap(end)(threefry), [end(key) for key in threefry], rtol=1e-12)


# --- Where it runs ----------------------------------------------------------------------------------------------------


def test_the_import_door_and_run_need_no_posix(tmp_path):
    """As on Windows: modules that are not there, and functions of `os` and `signal`."""
    code = """if True:
        import jax, numpy, optax, os, signal, sys
        for name in ("fcntl", "grp", "posix_ipc", "pwd", "resource", "syslog", "termios", "tty", "pty"):
            sys.modules[name] = None  # as if there were none
        for module, names in (
            (os, ("fork", "forkpty", "getuid", "killpg", "mkfifo", "setsid", "sysconf", "uname", "register_at_fork")),
            (signal, ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "alarm", "setitimer", "pthread_kill")),
        ):
            for name in names:
                if hasattr(module, name):
                    delattr(module, name)
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        import asyncflax
        from asyncflax import algorithms, engine, theory, transforms
        trace = asyncflax.queues.simulate(num_workers=2, num_updates=3, service_time=asyncflax.queues.exponential())
        gradient_fn = asyncflax.from_loss(lambda w, batch: (w - batch) ** 2)
        for store in ("device", "host"):
            result = asyncflax.run(algorithms.asgd(0.1), gradient_fn, 0.0, trace, jax.numpy.ones(3), store=store)
        trace.save("trace.npz")
        assert len(asyncflax.Trace.load("trace.npz")) == 3
        assert before == {number: signal.getsignal(number) for number in before}
        print(result.losses.shape)
    """
    command = [sys.executable, "-W", "ignore", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "(3,)\n"
