"""Ids equal to the goldens' and to sentencepiece's own; what is saved gives plain transformers the same ids."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerBase,
)
from transformers.convert_slow_tokenizer import import_protobuf

from vlm_crash.models.folder import read_config
from vlm_crash.models.tokenizers import check_tokenizer, load_tokenizer, save_tokenizer

PARITY = Path(__file__).parents[1] / "parity"
FOLDERS = {"qwen2": PARITY / "checkpoints/qwen2_hico", "internlm2": PARITY / "checkpoints/internlm2"}
INTERNLM2 = FOLDERS["internlm2"]
GOLDENS = json.loads((PARITY / "prompts.json").read_text(encoding="utf-8"))
IMAGE = "<img>" + "<IMG_CONTEXT>" * 4 + "</img>"
# CJK, emoji, a letter with a combining accent, blanks of several kinds, what sentencepiece writes for a blank.
SIGNS = [
    *"abe hT.8\n\t",
    "  ",
    "书生",
    "😀",
    "e\u0301",
    "\u00a0",
    "\u3000",
    "▁",
    "\0",
    "\u200b",
    "The video",
    "Frame1: ",
]
TEXTS = st.lists(st.sampled_from(SIGNS) | st.text(max_size=3), max_size=25).map("".join)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    return {family: load_tokenizer(FOLDERS[family]) for family in FOLDERS}


def expand(run_lengths: list[list[int]]) -> list[int]:
    return [token for token, count in run_lengths for _ in range(count)]


def rendered(template: dict[str, Any], turns: list[str]) -> str:
    """The whole text of a conversation, as the golden's template has it."""
    system = template["system_template"].format(system_message=template["system_message"])
    said = [role + text + template["sep"] for role, text in zip(template["roles"] * len(turns), turns, strict=False)]
    text = system + template["sep"] + "".join(said)
    return text.replace("<image>", IMAGE) + (template["roles"][1] if len(turns) % 2 else "")


@pytest.mark.parametrize("golden", GOLDENS["infer"], ids=lambda g: f"{g['arch']}-{g['template']}-{g['len']}")
def test_prompts_of_the_original_chat(golden, tokenizers):
    template = GOLDENS["templates"]["InternVL repo: " + golden["template"]]
    cases = [([golden["question"]], golden)]
    if "turn2" in golden:
        cases.append(([*golden["turn2"]["history"], golden["turn2"]["question"]], golden["turn2"]))
    for turns, expected in cases:
        ids = tokenizers[golden["arch"]](rendered(template, turns))["input_ids"]
        assert ids == expand(expected["ids_rle"])


# preprocess_phi3_fast tokenizes answers apart, another result for InternLM2: see tests/data/test_tokenization.py.
WHOLE = [g for g in GOLDENS["train"] if (g["preprocess"], g["arch"]) != ("preprocess_phi3_fast", "internlm2")]


@pytest.mark.parametrize("golden", WHOLE, ids=lambda g: f"{g['arch']}-{g['preprocess'].split()[0]}-{g['len']}")
def test_conversations_of_the_original_training(golden, tokenizers):
    # The human text is the same for every function that upstream has; only one of them wrote it down.
    first = next(
        other["human_text_after_video_get_item"]
        for other in GOLDENS["train"]
        if other["conversations"] == golden["conversations"] and "human_text_after_video_get_item" in other
    )
    turns = [first, *(turn["value"] for turn in golden["conversations"][1:])]
    template = GOLDENS["templates"]["xtuner-train_internvideo2_5: " + golden["template"]]
    assert tokenizers[golden["arch"]](rendered(template, turns))["input_ids"] == expand(golden["ids_rle"])


@pytest.mark.parametrize("file", sorted(PARITY.glob("goldens/*.safetensors")), ids=lambda file: file.stem)
def test_ids_of_every_golden_run(file, tokenizers):
    facts = json.loads(file.with_suffix(".json").read_text())
    if "checkpoint" in facts:  # a variant of another: its texts
        facts |= json.loads((file.parent / f"{Path(facts['checkpoint']).name}.json").read_text())
    tensors = load_file(file)
    for case, said in facts["cases"].items():
        suffix = "" if case == "base" else f".{case}"
        count = said["tokens_per_frame"]
        text = said["query_infer"].replace(f"<IMG_CONTEXT>*{count}", "<IMG_CONTEXT>" * count)
        ids = tensors[f"gen.input_ids{suffix}"][0].tolist()
        assert tokenizers[facts["arch"]](text)["input_ids"] == ids


@pytest.mark.parametrize("family", FOLDERS)
def test_plain_transformers_loads_what_is_saved(family, tokenizers, tmp_path):
    tokenizer = tokenizers[family]
    save_tokenizer(tokenizer, tmp_path)
    read_config(FOLDERS[family]).save_pretrained(tmp_path)
    texts = ["Hello  世界 \n\n<|im_start|>user\n" + IMAGE + " ok <video> <ref>x</ref><|im_end|>\n", "", " ", "a\tb😀"]
    for other in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)):
        assert len(other) == len(tokenizer)
        assert (other.bos_token_id, other.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        for text in texts:
            ids = other(text)["input_ids"]
            assert ids == tokenizer(text)["input_ids"]
            assert other.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("family", FOLDERS)
def test_a_processor_makes_the_same_prompt(family, tokenizers, tmp_path):
    from PIL import Image

    save_tokenizer(tokenizers[family], tmp_path)
    read_config(FOLDERS[family]).save_pretrained(tmp_path)
    size = {"height": 112, "width": 112}
    parts = GotOcr2ImageProcessor(size=size), AutoTokenizer.from_pretrained(tmp_path), InternVLVideoProcessor(size=size)
    InternVLProcessor(*parts, image_seq_length=4).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    frames = [Image.new("RGB", (60, 50))] * 2
    inputs = processor(
        images=frames, text="A: <IMG_CONTEXT>\nB: <IMG_CONTEXT>\nQ", images_kwargs={"crop_to_patches": False}
    )
    assert inputs["input_ids"][0] == tokenizers[family](f"A: {IMAGE}\nB: {IMAGE}\nQ")["input_ids"]


def test_code_that_a_folder_names_is_not_run(tmp_path, monkeypatch):
    shutil.copytree(INTERNLM2, tmp_path / "model")
    (tmp_path / "model/tokenization_internlm2.py").write_text("raise SystemExit('run')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    save_tokenizer(load_tokenizer(tmp_path / "model"), tmp_path / "out")
    assert "auto_map" not in json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


# ------------------------------------------------------------------------------------------- against sentencepiece

TRAINED: dict[str, dict[str, Any]] = {
    "symbols": {"user_defined_symbols": ["[X]", "<sep>", "书"]},
    "no_bytes": {"byte_fallback": False},
    "no_prefix": {"add_dummy_prefix": False, "user_defined_symbols": ["[X]"]},
    "rare_signs": {"character_coverage": 0.98},
    "across_blanks": {"split_by_whitespace": False, "allow_whitespace_only_pieces": True},
}
REFUSED = {"nfkc": {"normalization_rule_name": "nmt_nfkc"}, "blank": {"user_defined_symbols": ["a b"]}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trains a sentencepiece model of a kind and gives its folder."""
    text = [line for path in (PARITY.parents[1] / "docs").glob("*.md") for line in path.read_text().splitlines()]
    text += ["多模态大模型，英文名叫InternVL", "    x = 1\ty", "-----aaaaaaa"] * 20

    def train(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        usual: dict[str, Any] = {"byte_fallback": True, "character_coverage": 1.0, "remove_extra_whitespaces": False}
        usual |= {"normalization_rule_name": "identity", **(TRAINED | REFUSED)[name]}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=1200,
            minloglevel=2, hard_vocab_limit=False, **usual,
        )  # fmt: skip
        return folder

    return train


@pytest.mark.parametrize("name", ["golden", *TRAINED])
def test_ids_equal_sentencepiece(name, trained):
    folder = INTERNLM2 if name == "golden" else trained(name)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = load_tokenizer(folder)
    named = [token for token in tokenizer.get_added_vocab() if token not in ("[X]", "<sep>", "书")]

    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(TEXTS)
    def equal(text: str) -> None:
        if any(token in text for token in named):
            return
        ids = reference.encode(text)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        if name != "no_bytes":  # where what is unknown is lost
            assert tokenizer.decode(ids) == reference.decode(ids)

    equal()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_every_part_between_special_tokens_is_tokenized_by_itself(texts):
    """The slow class of the original gives each to sentencepiece with a blank of its own in front."""
    reference = sentencepiece.SentencePieceProcessor(model_file=str(INTERNLM2 / "tokenizer.model"))
    tokenizer = load_tokenizer(INTERNLM2)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    want = [tokenizer.bos_token_id]
    for text in texts:
        want += [*reference.encode(text), end]
    assert tokenizer("".join(f"{text}<|im_end|>" for text in texts))["input_ids"] == want


# ----------------------------------------------------------------------------------------------- broken folders


def write_json(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("internlm2", lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer"),
        (
            "internlm2",
            lambda f: (f / "tokenizer.model").write_bytes(b"\xff" * 9),
            "tokenizer.model is no sentencepiece",
        ),
        ("internlm2", lambda f: (f / "tokenizer_config.json").write_text("{"), "tokenizer_config.json is not JSON"),
        ("internlm2", lambda f: (f / "added_tokens.json").write_text('{"<img>": 390}'), "390 is '<img>' in .*im_start"),
        ("internlm2", write_json("tokenizer_config.json", lambda c: c.update(add_eos_token=True)), "add_eos_token"),
        ("internlm2", write_json("tokenizer_config.json", lambda c: c.update(bos_token="<bos>")), "no token '<bos>'"),
        ("qwen2", lambda f: (f / "merges.txt").unlink(), "no merges.txt"),
        ("qwen2", lambda f: (f / "merges.txt").write_text("#version: 0.2\nq zz\n"), "merges.txt:2: 'q zz'"),
        ("qwen2", lambda f: (f / "vocab.json").write_text("[]"), "vocab.json holds no JSON object"),
        ("qwen2", lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is no fast tokenizer"),
    ],
)
def test_broken_files_are_named(family, change, message, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FOLDERS[family], folder)
    change(folder)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("name", "message"), [("nfkc", "normalizer 'nmt_nfkc', not identity"), ("blank", "a symbol with a blank")]
)
def test_sentencepiece_models_of_another_form_are_refused(name, message, trained):
    with pytest.raises(ValueError, match=message):
        load_tokenizer(trained(name))


def test_unused_pieces(tmp_path):
    """Placeholders that nothing makes up may be unused; a word may not: sentencepiece would take it apart again."""
    model = import_protobuf().ModelProto()
    model.ParseFromString((INTERNLM2 / "tokenizer.model").read_bytes())
    pieces = {piece.piece: piece for piece in model.pieces}
    pieces["[UNUSED_TOKEN_141]"].type = 5
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    text = "The [UNUSED_TOKEN_141] video"
    assert load_tokenizer(tmp_path)(text, add_special_tokens=False)["input_ids"] == reference.encode(text)
    pieces["▁video"].type = 5
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="unused pieces that others make up"):
        load_tokenizer(tmp_path)


def test_added_tokens_without_a_config(tokenizers, tmp_path):
    """Old folders: the ids come from added_tokens.json alone."""
    for name in ("tokenizer.model", "added_tokens.json"):
        shutil.copy(INTERNLM2 / name, tmp_path)
    ids = load_tokenizer(tmp_path)(f"a {IMAGE} b")["input_ids"]
    assert ids == tokenizers["internlm2"](f"a {IMAGE} b")["input_ids"]


def test_a_tokenizer_of_another_model(tokenizers):
    config = InternVLConfig(text_config={"model_type": "qwen2", "vocab_size": 400}, image_token_id=393)
    for tokenizer in tokenizers.values():
        check_tokenizer(tokenizer, config)
    config.image_token_id = 7
    with pytest.raises(ValueError, match=r"<IMG_CONTEXT> has id 393 in the tokenizer, and config.json says 7"):
        check_tokenizer(tokenizers["qwen2"], config)
    config.text_config.vocab_size = 399
    with pytest.raises(ValueError, match="go up to 399, and the model has 399 embeddings"):
        check_tokenizer(tokenizers["qwen2"], config)


def test_folder_without_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="has no tokenizer"):
        load_tokenizer(tmp_path)
