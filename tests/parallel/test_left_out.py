"""A training clip that cannot be read is left out on all processes, which stay in step; tokens keep their weight."""

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.copies import copied, samples_of, spoil
from tests.parallel.left_out import SEED, train_over
from tests.parallel.micro import Micro
from vlm_crash.data.collate import Collator, PackCollator
from vlm_crash.data.datamodule import CrashDataModule


@pytest.fixture(scope="module")
def dataset(prepared, demo_clips, tmp_path_factory):
    folder = copied(prepared, tmp_path_factory.mktemp("left_out"))
    spoil(samples_of(folder, "train")[3])
    return folder


@pytest.fixture(scope="module")
def both(launch, micro_model, dataset, tmp_path_factory):
    """What two processes come to."""
    return launch("left_out", 2, micro_model, dataset, tmp_path_factory.mktemp("saved"))


def test_two_processes_are_one_with_twice_the_batch(both, micro_model, dataset, one_thread):
    bad = samples_of(dataset, "train")[3]
    alone = train_over(micro_model, dataset, 1, 2, seed=SEED)
    for found in both:
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert found["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    for found in (*both, alone):
        assert found["steps"] == 10
        assert list(found["left_out"]) == [bad.id] and found["left_out"][bad.id][0] == bad.video
        assert [id for id, flag in zip(found["ids"], found["flags"], strict=True) if flag] == [bad.id]


def test_two_processes_that_go_on_know_what_one_of_them_left_out(both, dataset):
    """It is in the checkpoint from its turn on, whichever process read it; no process tries it again."""
    bad = samples_of(dataset, "train")[3]
    for found in both:
        turn, rest = found["turn"], found["rest"]
        assert turn < 4  # the epoch has a step left
        assert [list(clips) for clips in found["told"]] == [[]] * turn + [[bad.id]] * (5 - turn)
        assert rest["left_out"] == found["left_out"] and rest["flags"] == found["flags"]
        assert rest["losses"] == found["losses"][turn + 1 :]


def test_all_processes_hear_that_one_has_no_room_for_the_cache(both):
    first, second = (found["room"] for found in both)
    for alike in ("for all", "on both"):
        assert first[alike] is None and second[alike] is None
    other = "the frame cache has no room; another process says how much it needs"
    assert first["for none"].startswith("the frame cache has no room: 14 clips x 2 frames")
    assert second["for none"] == other
    assert first["for the first"] == other
    assert second["for the first"].startswith("the frame cache has no room: 14 clips x 2 frames")


def test_a_step_of_bad_clips_alone_moves_no_weight(micro_model, dataset, one_thread):
    """One clip a step; SGD has a momentum here, which would go on."""
    bad = samples_of(dataset, "train")[3]
    found = train_over(micro_model, dataset, 1, 1, num_workers=0)
    assert found["steps"] == 20
    assert found["moved"] == {"": False} | {id: True for id in found["ids"] if id != bad.id}


def test_a_run_that_goes_on_knows_what_was_left_out(micro_model, dataset, one_thread, tmp_path, caplog):
    """Stopped inside the first epoch, after the bad clip had its turn: it is not seen again, and counts."""
    bad = samples_of(dataset, "train")[3]
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = train_over(micro_model, dataset, 1, 1, num_workers=0, saves=(save,))
    assert f"epoch 0: 9 of 10 training clips used, 1 left out as they cannot be read: {bad.video}" in caplog.text
    seen = list(whole["moved"]).index("")  # steps before its turn
    assert seen < 9
    caplog.clear()
    rest = train_over(micro_model, dataset, 1, 1, num_workers=0, ckpt_path=tmp_path / f"step={seen + 1}.ckpt")
    assert f"epoch 0: 9 of 10 training clips used, 1 left out as they cannot be read: {bad.video}" in caplog.text
    assert rest["left_out"] == whole["left_out"] and rest["flags"] == whole["flags"]
    assert rest["losses"] == whole["losses"][seen + 1 :]


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
