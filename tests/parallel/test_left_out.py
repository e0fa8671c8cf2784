"""A training clip that cannot be read is left out on all processes, which stay in step; tokens keep their weight."""

import pytest

from tests.copies import copied, samples_of, spoil
from tests.parallel.left_out import train_over
from tests.parallel.micro import Micro
from vlm_crash.data.collate import Collator, PackCollator
from vlm_crash.data.datamodule import CrashDataModule


@pytest.fixture(scope="module")
def dataset(prepared, demo_clips, tmp_path_factory):
    folder = copied(prepared, tmp_path_factory.mktemp("left_out"))
    spoil(samples_of(folder, "train")[3])
    return folder


def test_two_processes_are_one_with_twice_the_batch(launch, micro_model, dataset, one_thread):
    bad = samples_of(dataset, "train")[3]
    both = launch("left_out", 2, micro_model, dataset)
    alone = train_over(micro_model, dataset, 1, 2)
    for found in both:
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert found["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    for found in (*both, alone):
        assert found["steps"] == 10
        assert list(found["left_out"]) == [bad.id] and found["left_out"][bad.id][0] == bad.video
        assert [id for id, flag in zip(found["ids"], found["flags"], strict=True) if flag] == [bad.id]


def test_a_step_of_bad_clips_alone_moves_no_weight(micro_model, dataset, one_thread):
    """One clip a step; SGD has a momentum here, which would go on."""
    bad = samples_of(dataset, "train")[3]
    found = train_over(micro_model, dataset, 1, 1, num_workers=0)
    assert found["steps"] == 20
    assert found["moved"] == {"": False} | {id: True for id in found["ids"] if id != bad.id}


def test_a_batch_with_a_bad_clip_has_the_loss_of_the_others(micro_model, dataset):
    data = CrashDataModule(folder=dataset, num_frames=2, on_bad_clip="skip", num_workers=0)
    module = Micro(micro_model).eval()
    data.connect(module.inputs)
    data.setup("fit")
    clips = data.train_dataloader().dataset
    bad_id = samples_of(dataset, "train")[3].id
    place = next(place for place, sample in enumerate(data.samples["train"]) if sample.id == bad_id)
    items = [clips[(place + step) % 10] for step in range(3)]
    for collate in (Collator(0), PackCollator(10**4)):
        batch = collate(items)
        assert [item.sample.id for item in batch.failed] == [bad_id] and len(batch.samples) == 2
        assert batch.num_fillers == 1
        whole, others = module._loss(batch), module._loss(collate(items[1:]))
        assert int(whole[1]) == int(others[1]) > 0
        assert float(whole[0]) == pytest.approx(float(others[0]), rel=1e-5)
