"""Mends what torchtune 0.6.1 gets wrong: in weights and adapters of some families, in `tune run`.

Each function says the symptom; tests/unit/tune/test_mend.py fails on the day it is gone.
"""

import functools
from typing import Any

from entrypoint.files import write_json


def apply() -> None:
    """Mend torchtune in this process; again changes nothing."""
    _name_gemma2_norms()
    _name_qwen3_norms()
    _give_the_checkpointer_its_facts()
    _drop_copies_of_the_embedding()
    _write_phi_adapters()
    _order_magnitudes()
    _scale_no_biases()
    _run_dotted_paths()


def _name_gemma2_norms() -> None:
    """Gemma 2's norms before and after the MLP were read into each other's place: wrong logits,
    no error (https://github.com/pytorch/torchtune/pull/2853)."""
    from torchtune.models.gemma2 import _convert_weights

    _convert_weights._GEMMA2_FROM_HF |= {
        "model.layers.{}.pre_feedforward_layernorm.weight": "layers.{}.mlp_norm.scale",
        "model.layers.{}.post_feedforward_layernorm.weight": "layers.{}.mlp_scale.scale",
    }


def _name_qwen3_norms() -> None:
    """Qwen3's weights convert as Qwen2's, but for two names that torchtune does not know."""
    from torchtune.models.qwen2 import _convert_weights

    _convert_weights._FROM_HF |= {
        f"model.layers.{{}}.self_attn.{norm}.weight": f"layers.{{}}.attn.{norm}.scale"
        for norm in ("q_norm", "k_norm")
    }


def _give_the_checkpointer_its_facts() -> None:
    """The checkpointer fails on keys that config.json may leave out, and it wrote wrong PEFT
    adapters for Qwen: it interleaves the halves of each head of q and k, as Llama's weights need
    and Qwen's do not. In heads of two numbers that changes nothing, and nothing else of Qwen's
    conversion asks for heads."""
    from torchtune.training import FullModelHFCheckpointer, ModelType

    stock = FullModelHFCheckpointer.__init__
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def init(self: Any, *positional: Any, **named: Any) -> None:
        stock(self, *positional, **named)
        config = self._config
        heads = config["num_attention_heads"]
        config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
        gemma = self._model_type in (ModelType.GEMMA, ModelType.GEMMA2)
        config.setdefault("tie_word_embeddings", gemma)
        if self._model_type is ModelType.QWEN2:
            pairs = (config.get("head_dim") or config["hidden_size"] // heads) // 2
            config["num_attention_heads"] *= pairs
            config["num_key_value_heads"] *= pairs
            config["head_dim"] = 2

    FullModelHFCheckpointer.__init__ = init


def _drop_copies_of_the_embedding() -> None:
    """Some checkpoints with tied embeddings hold the output head as well. torchtune knew that of
    Qwen's alone; all other models refused the weight."""
    from torchtune import training
    from torchtune.training import FullModelHFCheckpointer

    stock = FullModelHFCheckpointer.load_checkpoint
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def load(self: Any) -> dict[str, Any]:
        found: dict[str, Any] = stock(self)
        if self._config["tie_word_embeddings"]:
            found[training.MODEL_KEY].pop("output.weight", None)
        return found

    FullModelHFCheckpointer.load_checkpoint = load


def _write_phi_adapters() -> None:
    """The checkpointer has no PEFT format for Phi: it wrote adapter_model.pt alone."""
    from safetensors.torch import save_file
    from torchtune import training
    from torchtune.training import FullModelHFCheckpointer, ModelType

    from entrypoint.tune.phi_adapters import to_peft

    stock = FullModelHFCheckpointer.save_checkpoint
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def save(self: Any, state_dict: dict[str, Any], epoch: int, *more: Any, **named: Any) -> None:
        parts = (training.ADAPTER_KEY, training.MODEL_KEY, training.ADAPTER_CONFIG)
        found = None
        if self._model_type in (ModelType.PHI3_MINI, ModelType.PHI4) and all(
            part in state_dict for part in parts
        ):
            # torchtune puts transformers' names in their place
            found = to_peft(*(state_dict[part] for part in parts))
        stock(self, state_dict, epoch, *more, **named)
        if found:
            folder = self._output_dir / f"epoch_{epoch}"
            weights, config = found
            save_file(
                {name: weight.contiguous() for name, weight in weights.items()},
                folder / "adapter_model.safetensors",
                metadata={"format": "pt"},
            )
            write_json(folder / "adapter_config.json", config)

    FullModelHFCheckpointer.save_checkpoint = save


def _order_magnitudes() -> None:
    """A DoRA adapter in PEFT's format had the magnitudes of q and k in torchtune's order of rows,
    beside matrices in Hugging Face's: wrong logits, no error."""
    from torchtune.models import convert_weights

    stock = convert_weights.tune_to_peft_adapter_weights
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def convert(
        state_dict: dict[str, Any],
        num_heads: int = 32,
        num_kv_heads: int = 32,
        dim: int = 4096,
        head_dim: int | None = None,
    ) -> dict[str, Any]:
        converted: dict[str, Any] = stock(state_dict, num_heads, num_kv_heads, dim, head_dim)
        size = head_dim or dim // num_heads
        for part, heads in (("q_proj", num_heads), ("k_proj", num_kv_heads)):
            for name in converted:
                if name.endswith(f"{part}.lora_magnitude_vector"):
                    rows = converted[name].view(heads, size // 2, 2)
                    converted[name] = rows.transpose(1, 2).reshape(-1)
        return converted

    convert_weights.tune_to_peft_adapter_weights = convert


def _scale_no_biases() -> None:
    """DoRA scaled the bias of a layer (Qwen2's q, k and v) with its weights in training, but not
    when it merged, nor does PEFT. The norm is taken of the matrices, too, not of products with
    an identity that are only wanted by FSDP's first version."""
    import torch
    import torch.nn.functional as F
    from torchtune.modules.peft import DoRALinear

    if hasattr(DoRALinear.forward, "__wrapped__"):
        return

    @functools.wraps(DoRALinear.forward)
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        base = F.linear(x, self.weight)
        if not self.disabled:
            update = self.lora_b(self.lora_a(self.dropout(x)))
            with torch.no_grad():
                product = self.lora_b.weight @ self.lora_a.weight
                norm = self._get_weight_norm(self.weight.to(x.dtype), product)
            base = self.magnitude / norm * (base + self.scaling * update)
        return base if self.bias is None else base + self.bias

    DoRALinear.forward = forward


def _run_dotted_paths() -> None:
    """`tune run a.b.c` ran the module a.b: the last part was taken for a file's suffix."""
    from torchtune._cli.run import Run

    Run._convert_to_dotpath = lambda _, path: path.removesuffix(".py").replace("/", ".")
