"""Peak memory of `train quantize`, above an idle process with the same imports, on a random bf16
model of 2 GB; exit code 1 above the bound: python scripts/bench_quantize.py [METHOD [ROWS]].

8da4w, int4-weight-only, nf4 and int8-dynamic round by ROWS of the built-in task, 0 by default."""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama  # noqa: F401 - an idle process has it too

from entrypoint.data.dataset import load
from entrypoint.hardware import peak_memory
from entrypoint.models.embedded.materialise import embedded_folder, materialise
from entrypoint.noise import hide_loading_bars, silence
from entrypoint.quantization.folder import quantize, size_bytes
from entrypoint.quantization.model import quantizer
from entrypoint.quantization.samples import Calibration
from entrypoint.schemes import Scheme
from entrypoint.topology import World

BOUND = 1.3
WORLD = World(device="cpu", devices=1, dtype="bf16", cores=2)


def write_model(folder: Path) -> None:
    """A model that fits the built-in tokenizer; every row of a weight is the same wave."""
    materialise(embedded_folder({}))
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder({}))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=2048, intermediate_size=5632, num_hidden_layers=19,
        num_attention_heads=16, num_key_value_heads=16, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            wave = (torch.arange(parameter.shape[-1]) * 0.7).sin() * 0.05
            parameter.copy_(wave.expand_as(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    silence()
    hide_loading_bars()
    if len(sys.argv) == 4:
        scheme = Scheme(method=sys.argv[1])  # type: ignore[arg-type]
        quantizer(scheme, WORLD, ())
        folder, count = Path(sys.argv[3]), int(sys.argv[2])
        data = load("embedded", {}, dry=False).train
        calibration = Calibration(reference="embedded", file=data, count=count) if count else None
        idle = peak_memory()
        quantize(folder, scheme, WORLD, folder.with_name("quantized"), calibration)
        peak = peak_memory() - idle
        size = size_bytes(folder)
        print(f"{scheme.method}, {count} rows: {peak / 1e6:,.0f} MB for a model of "
              f"{size / 1e6:,.0f} MB: {peak / size:.2f}")  # fmt: skip
        sys.exit(peak > BOUND * size)
    import subprocess

    method = sys.argv[1] if len(sys.argv) > 1 else Scheme().method
    rows = sys.argv[2] if len(sys.argv) > 2 else "0"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_model(folder)
        # what the model was written with must not count
        subprocess.run((sys.executable, __file__, method, rows, folder), check=True)


if __name__ == "__main__":
    main()
