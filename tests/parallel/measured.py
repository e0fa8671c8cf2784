"""A real training step of a small InternVL on the CPU, counted byte by byte; and the plan of the same."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from benches.memory import TensorBytes
from benches.plan import config_of
from torch.profiler import ProfilerActivity, profile
from transformers import InternVLForConditionalGeneration

from vlm_crash.models.activation_checkpointing import checkpoint_towers
from vlm_crash.models.attention import set_attention
from vlm_crash.models.attention_by_frames import set_frame_chunk
from vlm_crash.models.internvl import label_loss, tower_of
from vlm_crash.models.optimization import parameter_groups
from vlm_crash.models.vision import embed_prompt
from vlm_crash.parallel.memory_model import walk
from vlm_crash.parallel.memory_shapes import Setting, Shape


@dataclass
class Measured:
    """Bytes at the peak of each part of a step."""

    forward: int = 0
    backward: int = 0
    optimizer: int = 0

    @property
    def peak(self) -> int:
        return max(self.forward, self.backward, self.optimizer)


class RealStep:
    """A model of a shape with a batch, ready to take steps as CrashVLM and Lightning do.

    Args:
        shape: of the model.
        setting: word plain, fp32; the settings of `fit` that it names are the model's.
    """

    def __init__(self, shape: Shape, setting: Setting, device: str = "cpu") -> None:
        torch.manual_seed(0)
        set_attention("math")
        self.setting = setting
        self.model = InternVLForConditionalGeneration(config_of(shape)).to(device).train()  # type: ignore[arg-type]
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(tower_of(name) not in setting.freeze)
        checkpoint_towers(self.model, sorted(setting.checkpointed))
        set_frame_chunk(self.model, setting.vision_chunk)
        rates = dict.fromkeys(("vision", "projector", "language"), 1e-5)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, rates, 0.0))
        clips, num_images = setting.batch_size, setting.num_frames * shape.frame_tokens
        self.ids = torch.randint(6, shape.vocab_size, (clips, setting.num_tokens(shape)))
        self.ids[:, 2 : 2 + num_images] = 5
        self.labels = self.ids.clone()
        self.labels[:, : -setting.label_tokens] = -100
        self.mask = torch.ones_like(self.ids)
        if setting.is_padded:
            self.mask[0, -1] = 0
            self.labels[0, -setting.label_tokens - 1] = 7  # as many labels as planned for
            self.labels[0, -1] = -100
        self.pixels = torch.randn(clips * setting.num_frames, 3, shape.image_size, shape.image_size)
        batch = (self.ids, self.labels, self.mask, self.pixels)
        self.ids, self.labels, self.mask, self.pixels = (tensor.to(device) for tensor in batch)

    def forward(self) -> torch.Tensor:
        embeds = embed_prompt(self.model, self.ids, self.pixels)
        loss, num_labels = label_loss(self.model, embeds, self.mask, self.labels)
        return loss / num_labels

    def take(self, after: Callable[[str], None] = lambda part: None) -> None:
        loss = self.forward()
        after("forward")
        if self.setting.accumulate == 1:
            self.optimizer.zero_grad()
        after("")
        loss.backward()
        del loss
        after("backward")
        self.optimizer.step()
        after("optimizer")

    def standing(self) -> list[torch.Tensor]:
        """What is there before a step: weights, gradients, AdamW's state, the batch."""
        parameters = list(self.model.parameters())
        state = [value for found in self.optimizer.state.values() for value in found.values()]
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        batch = [self.ids, self.labels, self.mask, self.pixels]
        return [*parameters, *self.model.buffers(), *grads, *filter(torch.is_tensor, state), *batch]

    def counted(self) -> Measured:
        """Peaks of a second step."""
        self.take()
        found = Measured()
        with TensorBytes(self.standing()) as bytes_:

            def after(part: str) -> None:
                if part:
                    setattr(found, part, bytes_.peak)
                bytes_.peak = bytes_.held

            self.take(after)
        return found

    def allocated(self) -> int:
        """The peak of a second step by the allocator itself, as torch's profiler hears it."""
        self.take()
        standing = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in self.standing()
        }
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as heard:
            self.take()
        assert heard.profiler is not None
        live = peak = sum(standing.values())
        events = [event for event in heard.profiler.kineto_results.events() if event.name() == "[memory]"]
        for event in sorted(events, key=lambda event: event.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        return peak


def planned(shape: Shape, setting: Setting) -> Measured:
    """The same by arithmetic."""
    worst = {moment: sum(parts.values()) for moment, parts in walk(shape, setting).worst.items()}
    backwards = [size for moment, size in worst.items() if "backward" in moment]
    forwards = [worst[moment] for moment in ("vision forward", "language forward", "loss head")]
    return Measured(max(forwards), max(backwards), worst["optimizer step"])
