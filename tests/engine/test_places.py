"""Every kind of method in every place: stores, meshes, model state and keys, against the NumPy server."""

import jax
import problems
import pytest
from problems import KINDS, METHODS, assert_close, batch_rows

import asyncflax

BATCHES = batch_rows()
TRACES = problems.some_traces()
PLACES = {
    "ring": {"width": 4, "store": "ring"},
    "host": {"width": 4, "store": "host"},
    "mesh": {"width": 4, "mesh": (2, 2)},
    "mesh, sharded server": {"width": 8, "mesh": (4, 2), "server": "sharded"},
    "mesh, sharded server, host": {"width": 4, "mesh": (2, 1), "server": "sharded", "store": "host"},
}


def cases():
    """Each kind and each place at least once; all methods everywhere in the slow tier."""
    kinds, places = list(KINDS), list(PLACES)
    first = {(kind, places[i % len(places)]) for i, kind in enumerate(kinds)}
    marks = lambda name, place: () if (name, place) in first else pytest.mark.slow
    return [pytest.param(name, place, marks=marks(name, place)) for name in METHODS for place in PLACES]


@pytest.mark.parametrize("name, place", cases())
def test_a_method_in_a_place_equals_the_numpy_server(name, place):
    row, where = METHODS[name], dict(PLACES[place])
    if "mesh" in where:
        where["mesh"] = asyncflax.make_mesh(*where["mesh"])
    start = {"key": jax.random.key(7), "model_state": problems.NORM_STATE}
    for trace in TRACES.values():
        plan = problems.of_one_shape(asyncflax.make_plan(trace, num_slots=problems.NUM_EVENTS, **where))
        state, out = problems.run_with_plan(
            row.make(), problems.norm_gradient, problems.NORM_PARAMS, plan, BATCHES, **start
        )
        twin = problems.norm_twin(row, trace, BATCHES, start["key"])
        assert_close(state.params, twin.theta)
        assert_close(state.model_state, twin.model_state)
        assert_close(out.losses, twin.losses)
        assert_close(out.gap, twin.gaps)
