import pytest
import torch
from torch import nn

from vlm_crash.metrics.packed_linear import PackedLinear, pack_linears


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@torch.inference_mode()
def test_products_are_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Sequential(nn.Linear(96, 8, bias=False)))
    states = torch.randn(3, 5, 48)
    wanted = model(states)
    assert pack_linears(model) is model
    assert [type(module) for module in (model[0], model[2][0])] == [PackedLinear] * 2
    torch.testing.assert_close(model(states), wanted, rtol=1e-5, atol=1e-5)


def test_other_dtypes_stay():
    model = nn.Sequential(nn.Linear(4, 4)).double()
    assert type(pack_linears(model)[0]) is nn.Linear
