"""A config.json, read with a message for what is missing or not supported."""

from collections.abc import Mapping
from typing import Any

from entrypoint.errors import ModelError
from entrypoint.models.tensors import Shape, decoder_tensors

Config = Mapping[str, Any]
Arguments = dict[str, Any]


class Facts:
    """What the families' functions ask of a config.json."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rope: Config = config.get("rope_parameters") or config.get("rope_scaling") or {}

    def __getitem__(self, key: str) -> Any:
        if self.config.get(key) is None:
            raise ModelError(f"config.json has no {key}")
        return self.config[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default when it is not there or null."""
        found = self.config.get(key)
        return default if found is None else found

    @property
    def rope_type(self) -> str:
        return str(self.rope.get("rope_type", self.rope.get("type", "default")))

    @property
    def quantized(self) -> str | None:
        """How the weights are quantized, if they are."""
        found = self.config.get("quantization_config")
        return None if found is None else str(found.get("quant_method", "unknown"))

    @property
    def head_dim(self) -> int:
        return int(self.get("head_dim", self["hidden_size"] // self["num_attention_heads"]))

    @property
    def kv_heads(self) -> int:
        return int(self.get("num_key_value_heads", self["num_attention_heads"]))

    def arguments(self, eps: float = 1e-6) -> Arguments:
        """Those that every builder takes; `eps` is transformers' default for the family."""
        theta = self.rope.get("rope_theta", self.get("rope_theta", 10_000))
        dropout = self.get("attention_dropout", 0)
        return {
            "vocab_size": self["vocab_size"],
            "num_layers": self["num_hidden_layers"],
            "num_heads": self["num_attention_heads"],
            "num_kv_heads": self.kv_heads,
            "embed_dim": self["hidden_size"],
            "intermediate_dim": self["intermediate_size"],
            "rope_base": whole(theta),
            "norm_eps": self.get("rms_norm_eps", eps),
            **({"attn_dropout": dropout} if dropout else {}),
        }

    def tensors(self, *, tied: bool, **differences: Any) -> dict[str, Shape]:
        return decoder_tensors(
            vocab=self["vocab_size"],
            hidden=self["hidden_size"],
            inner=self["intermediate_size"],
            layers=self["num_hidden_layers"],
            heads=self["num_attention_heads"],
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            tied=tied,
            **differences,
        )

    def refuse(
        self,
        *,
        activation: str = "silu",
        key: str = "hidden_act",
        ropes: tuple[str, ...] = ("default",),
        own_head_dim: bool = False,
        others: Mapping[str, bool] | None = None,
    ) -> None:
        """Raise ModelError for what the builder does not honour.

        Args:
            activation: the one that the builder has, named by `key`.
            ropes: types of rotary embedding that the builder has.
            own_head_dim: whether it takes a head_dim.
            others: name -> whether the config has it.
        """
        found = self.get(key, activation)
        derived = self["hidden_size"] // self["num_attention_heads"]
        unsupported = {
            f"rope scaling of type {self.rope_type}": self.rope_type not in ropes,
            f"partial_rotary_factor {self.partial_rotary}": self.partial_rotary != 1
            and "longrope" not in ropes,
            "RoPE by the type of layer": any(isinstance(v, Mapping) for v in self.rope.values()),
            f"quantized weights ({self.quantized})": self.quantized is not None,
            "use_bidirectional_attention": bool(self.get("use_bidirectional_attention", False)),
            "attention_bias": bool(self.get("attention_bias", False)),
            "mlp_bias": bool(self.get("mlp_bias", False)),
            f"head_dim {self.head_dim} unlike hidden_size / heads": not own_head_dim
            and self.head_dim != derived,
            f"{key} {found} unlike {activation}": found != activation,
            **(others or {}),
        }
        for feature, present in unsupported.items():
            if present:
                raise ModelError(f"the model uses {feature}, which is not supported")

    @property
    def partial_rotary(self) -> float:
        return float(self.rope.get("partial_rotary_factor", self.get("partial_rotary_factor", 1.0)))

    def within(self, window: int | None) -> dict[str, Any]:
        """The context; builders without sliding windows are right within the first one."""
        longest = self["max_position_embeddings"]
        if window is not None and window < longest:
            return {"context": window, "bound": "sliding_window"}
        return {"context": longest}


def whole(number: float) -> float:
    """Builders say int for what config.json may write as 10000.0."""
    return int(number) if number == int(number) else number
