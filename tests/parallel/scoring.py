"""Checks of worker.py: validation and test of a model whose weights are shared out."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.parallel.micro import Counted, Micro, score
from tests.parallel.place import RANK, WORLD
from vlm_crash.models.decoding import Decoder, greedy_answers
from vlm_crash.models.term_tree import TermTree
from vlm_crash.models.vision import embed_prompt
from vlm_crash.parallel import FSDPStrategy
from vlm_crash.parallel.gathering import CPUGroup


class Uneven(Micro):
    """Answers that end at once on the first process and never on the others."""

    lengths: tuple[int, ...] = ()

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        prompt = embed_prompt(self.model, batch.input_ids_BS, batch.pixel_values_N3HW)
        events = TermTree.of({"one": [6, 7], "other": [8, 9]})

        def decoder() -> Decoder:
            return Decoder(self.model, prompt, batch.attention_mask_BS)

        first = greedy_answers(decoder(), events, 1, -1).token_ids[0][0]
        end = first if RANK == 0 else -1
        answers = greedy_answers(decoder(), events, 6, end, self._any_process)
        self.lengths += (len(answers.token_ids[0]),)
        return super().validation_step(batch, batch_idx)


def scored(folder: str) -> dict[str, Any]:
    """Five clips on two processes: how long each answer was, what was answered and counted; a process stays away."""
    module = Uneven(Path(folder))
    found: dict[str, Any] = {"loss": score(module, "validate", FSDPStrategy(), WORLD)["val/loss"]}
    found["lengths"] = module.lengths
    for stage in ("validate", "test"):
        counted = Counted(Path(folder))
        found[stage] = {"metrics": score(counted, stage, FSDPStrategy(), WORLD, batch_size=2), **counted.counts}
    group = CPUGroup(timedelta(seconds=5))
    found["error"] = ""
    try:
        if RANK == 0:
            group.gather_dict({"a.weight": module.model.lm_head.weight})
    except RuntimeError as failure:
        found["error"] = str(failure)
    dist.barrier()  # the others stay away until the first one has given up
    return found
