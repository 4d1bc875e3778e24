"""A checkpoint under SIGKILL and under a full disk, at writes drawn by chance; `python tests/writes.py` tries all."""

import random

import pytest
import writes

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(writes.why_not()), reason=writes.why_not() or "-")]


@pytest.mark.parametrize("mode", ["kill", "full"])
def test_one_of_two_checkpoints_is_whole_whatever_happens(tmp_path, mode):
    total = writes.count(tmp_path)
    assert total > 50
    tried = writes.try_all(tmp_path, mode, random.Random(0).sample(range(1, total + 1), 5))
    assert tried.total() == 5
