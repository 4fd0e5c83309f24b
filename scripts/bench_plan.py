"""Planned memory against the measured peak, on a CPU: python -m scripts.bench_plan [CASE ...]

Each case trains for real in a process of its own. Its peak is held as it is, and without that of
the same process when all is imported and nothing is built. Exit code 1 when an estimate is out of
bounds.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint import inputs, pipeline
from entrypoint.hardware import peak_memory, torch_build
from entrypoint.memory import IMPORTED_BYTES, OVER, UNDER
from entrypoint.settings import EMBEDDED, Settings

MB = 10**6


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One run."""

    model: str = "small"
    """`small`, a random one of 47 million parameters, or `embedded`."""
    settings: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    steps: int = 2
    """More show whether memory grows with them."""


SEQUENCE = {"max_seq_len": 1024}
CASES: dict[str, Case] = {
    "small lora fp32": Case(settings=SEQUENCE),
    "small full fp32": Case(settings={"method": "full", **SEQUENCE}),
    "small full bf16, 16 rows": Case(
        settings={"method": "full", "dtype": "bf16", "batch_size": 16, **SEQUENCE}
    ),
    "small qlora bf16": Case(settings={"method": "qlora", "dtype": "bf16", **SEQUENCE}),
    "small dpo lora fp32": Case(settings={"objective": "dpo", **SEQUENCE}),
    "small dpo full fp32": Case(settings={"objective": "dpo", "method": "full", **SEQUENCE}),
    "small kd full fp32, a teacher of its size": Case(
        settings={"objective": "kd", "method": "full", "teacher": "small", **SEQUENCE}
    ),
    "small lora bf16, 16 rows, 10 steps": Case(
        settings={"dtype": "bf16", "batch_size": 16, "max_seq_len": 2048}, steps=10
    ),
    "small dora bf16, 10 steps": Case(
        settings={"method": "dora", "dtype": "bf16", **SEQUENCE}, steps=10
    ),
    "small lora fp32, 8 rows, window 512": Case(
        settings={"batch_size": 8, "max_seq_len": 2048}, overrides=("packing_window=512",)
    ),
    "embedded lora fp32": Case(model=EMBEDDED),
    "embedded lora bf16": Case(model=EMBEDDED, settings={"dtype": "bf16"}),
    "embedded lora fp32, 32 rows": Case(model=EMBEDDED, settings={"batch_size": 32}),
    "embedded full fp32": Case(model=EMBEDDED, settings={"method": "full"}),
    "embedded full bf16, 16 rows": Case(
        model=EMBEDDED, settings={"method": "full", "dtype": "bf16", "batch_size": 16}
    ),
    "embedded dpo full bf16": Case(
        model=EMBEDDED, settings={"objective": "dpo", "method": "full", "dtype": "bf16"}
    ),
    "embedded kd lora bf16": Case(model=EMBEDDED, settings={"objective": "kd", "dtype": "bf16"}),
    "embedded qlora bf16": Case(model=EMBEDDED, settings={"method": "qlora", "dtype": "bf16"}),
}
QUICK = tuple(name for name in CASES if name.startswith("small"))[:8]
"""What the test takes."""


def write_small(folder: Path) -> Path:
    """A random model of 47 million parameters in fp32, with the tests' tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import write_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=768, intermediate_size=1536, num_hidden_layers=8,
        num_attention_heads=12, num_key_value_heads=4, max_position_embeddings=2048,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Bytes of a run."""

    planned: int
    peak: int
    """Of the process's resident memory."""
    idle: int
    """The same, before anything was built."""

    @property
    def ratios(self) -> tuple[float, float]:
        """Planned to measured: of all, and of what the run takes beyond its imports."""
        imported = IMPORTED_BYTES[torch_build()]
        beyond = (self.planned - imported) / (self.peak - self.idle)
        return self.planned / self.peak, beyond

    @property
    def held(self) -> bool:
        """Whether the estimate is as good as it must be."""
        return all(UNDER <= ratio <= OVER for ratio in self.ratios)

    def __str__(self) -> str:
        """Cells of a table."""
        cells = (f"{size / MB:,.0f} MB" for size in (self.planned, self.peak))
        return " | ".join((*cells, *(f"{ratio:.2f}" for ratio in self.ratios)))


def measured(case: Case, small: Path, folder: Path) -> Measured:
    """Train, and compare with the plan.

    Args:
        small: the folder of the small model.
    """
    given: dict[str, Any] = {
        "device": "cpu",
        "dtype": "fp32",
        "max_steps": case.steps,
    } | case.settings
    names = {"small": str(small)}
    given["model"] = names.get(case.model, case.model)
    if "teacher" in given:
        given["teacher"] = names.get(given["teacher"], given["teacher"])
    settings = Settings(output=folder, overrides=case.overrides, **given)
    prepared = pipeline.prepare(settings, os.environ)
    inputs.ensure_present(prepared.plan.model, prepared.plan.teacher, os.environ)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(prepared.recipe, "utf-8")
    ended = subprocess.run(
        (sys.executable, "-m", "scripts.bench_plan", "--child", str(folder / "recipe.yaml")),
        env={**os.environ, **prepared.command.environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if ended.returncode:
        raise SystemExit(f"the run failed:\n{ended.stderr[-2000:]}")
    peaks = json.loads(ended.stdout.splitlines()[-1])
    return Measured(planned=prepared.estimate.footprint.total, **peaks)


def child(recipe: str) -> None:
    """Train, and print how much memory that took, and to be there."""
    from omegaconf import OmegaConf

    from entrypoint.tune import compat

    compat.apply()
    from transformers import AutoTokenizer  # noqa: F401 - an idle process has it too

    from entrypoint.data import chat  # noqa: F401
    from entrypoint.tune import recipe as training
    from entrypoint.tune.stopping import Stop
    from entrypoint.tune.worlds import join

    idle = peak_memory()
    training.train(OmegaConf.load(recipe), join("cpu"), Stop())  # type: ignore[arg-type]
    print(json.dumps({"idle": idle, "peak": peak_memory()}))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
        return
    failed = False
    print("| run | planned | measured | ratio | beyond imports |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        small = write_small(Path(scratch) / "small")
        for number, name in enumerate(sys.argv[1:] or CASES):
            found = measured(CASES[name], small, Path(scratch) / str(number))
            failed |= not found.held
            print(f"| {name} | {found} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
