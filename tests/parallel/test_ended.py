"""A run that has come to an end has its last checkpoint there, and what goes on from it is the longer run."""

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy

from tests.parallel.journey import travel

STEPS = 10


class EndAfter(Callback):
    """What early stopping or a time limit does."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop |= trainer.global_step >= self.step


@pytest.fixture(scope="module")
def whole(micro_model, prepared, tmp_path_factory, one_thread):
    return travel(
        micro_model, prepared, tmp_path_factory.mktemp("whole"), 1, STEPS, strategy=SingleDeviceStrategy("cpu")
    )[0]


@pytest.mark.parametrize("step", [pytest.param(6, id="after an epoch"), pytest.param(7, id="in an epoch")])
def test_the_rest_is_bit_equal(whole, micro_model, prepared, tmp_path, step):
    """As in titan.yaml the last is saved every so many steps, and the end is none of them."""

    def run(**options):
        return travel(micro_model, prepared, world=1, steps=STEPS, strategy=SingleDeviceStrategy("cpu"), **options)

    keeper = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=0, save_last=True)
    run(out=tmp_path / "first", saves=(keeper,), callbacks=(EndAfter(step),))
    rest, _ = run(out=tmp_path / "rest", ckpt_path=tmp_path / "last.ckpt")
    assert sorted(rest) == list(range(step + 1, STEPS + 1))
    for number, line in rest.items():
        assert line == whole[number]
