"""What plain transformers needs beside weights and tokenizer: a processor with a chat template.

Enters: a config, and a folder that has its tokenizer. Leaves: files from which AutoProcessor makes images and clips
into frames of the model's size, with as many image tokens as plain transformers' model makes of them.
"""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, InternVLConfig, InternVLProcessor, InternVLVideoProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor

from vlm_crash.models.folder import image_size
from vlm_crash.video.image_transform import IMAGENET_MEAN, IMAGENET_STD

# Turns as both of InternVL's templates have them; an image or a clip stands on a line of its own. The names in it are
# those that save_tokenizer gives the processor for images and clips.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}{% elif part['type'] == 'video' %}{{ '<img>\\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def save_processor(config: InternVLConfig, folder: Path) -> None:
    """Write processor_config.json and chat_template.jinja into a folder that has a tokenizer."""
    height, width = image_size(config)
    looks: dict[str, Any] = {
        "size": {"height": height, "width": width},
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**looks),
        tokenizer=AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True),
        video_processor=InternVLVideoProcessor(**looks),
        image_seq_length=config.image_seq_length,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
