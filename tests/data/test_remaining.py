"""What is left, shared among the processes: every clip once, as many batches each."""

import numpy as np
import pytest

from vlm_crash.data.remaining import Remaining


@pytest.mark.parametrize("world", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("left", [[], [5], [0, 2, 3, 7, 8, 9, 11]])
def test_every_clip_once(world, batch_size, left):
    samplers = [Remaining(np.array(left, dtype=int), batch_size, world, rank) for rank in range(world)]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}
    assert all(0 < len(batch) <= batch_size for share in shares for batch in share)
    given = [index for share in shares for batch in share for index in batch]
    assert sorted(index for index in given if index >= 0) == left
    assert {index for index in given if index < 0} <= {~left[-1] if left else 0}
