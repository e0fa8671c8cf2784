"""Token merging alone against tome/, in three dtypes.

Enters: tome.json and tome.safetensors. Leaves: differences in a Report.
"""

# Suffixes: G groups, P tokens of a group, T merged tokens, C channels, R tokens that a step merges away.

import json
from pathlib import Path

import torch

from parity.report import Report
from vlm_crash.models.token_merging import match_tokens, merge_tokens

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def check_tome(folder: Path, report: Report) -> None:
    """Token merging alone, in three dtypes."""
    cases = json.loads((folder / "tome/tome.json").read_text())["cases"]
    goldens = report.load("tome", folder / "tome/tome.safetensors")
    for name, case in cases.items():
        row = f"tome {name}"
        wanted = ("x", "final_size", *(f"out_{dtype}" for dtype in case["dtypes"]))
        missing = [key for key in wanted if f"{name}.{key}" not in goldens]
        report.problems += [f"{row}: golden {name}.{key} is missing" for key in missing]
        if missing:
            continue
        for dtype, facts in case["dtypes"].items():
            x_GPC = goldens[f"{name}.x"].to(DTYPES[dtype]).expand(*case["shape"])
            got = merge_tokens(x_GPC, case["target"], case["heads"]).float()
            # Where the original overflows we do not: what it computes in fp32 is wanted then.
            want = goldens[f"{name}.out_{'fp32' if facts['out_has_inf'] else dtype}"].float()
            difference_GT = ((got - want).abs() / want.abs().clamp(min=1)).amax(dim=2)
            # In half precision two similarities may be equal by rounding, which is the processor's: then up to a
            # quarter of the tokens may be others.
            kept = 1.0 if dtype == "fp32" else 0.75
            report.add(
                row, f"tome {dtype}", f"out_{dtype}", difference_GT.quantile(kept, interpolation="higher").item()
            )
        matching = match_tokens(goldens[f"{name}.x"].float().expand(*case["shape"]), case["target"], case["heads"])
        sizes_GT1 = torch.stack([slots.bincount(minlength=case["target"]) for slots in matching.slot_GP])[..., None]
        report.equal(row, "final_size", sizes_GT1, goldens[f"{name}.final_size"])
        report.equal(row, "r_merge_list", [len(src_GR[0]) for src_GR, _ in matching.steps], case["r_merge_list"])
        for step, pair in enumerate(matching.steps):
            for side, got_GR in zip(("src", "dst"), pair, strict=True):
                golden = goldens.get(f"{name}.step{step}_{side}")
                if golden is not None:
                    report.equal(row, f"step{step}_{side}", got_GR, golden)
