"""A model that is asked and does not learn: a reference, or a teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torchtune import config, training
from torchtune.modules import peft

from entrypoint.tune import worlds
from entrypoint.tune.worlds import Ranks


@contextmanager
def asked(model: nn.Module) -> Iterator[None]:
    """While inside, the model is what it was before training: no gradients, no dropout, and
    adapters, if it has any, are off."""
    training_mode = model.training
    model.eval()
    try:
        with torch.no_grad(), peft.disable_adapter(model):
            yield
    finally:
        model.train(training_mode)


def build(model: DictConfig, checkpointer: Any, dtype: torch.dtype, ranks: Ranks) -> Any:
    """A decoder of its own that is never trained, spread over the processes.

    Args:
        model: the recipe's node for it.
        checkpointer: torchtune's, which reads its weights.
    """
    place = ranks.device if ranks.size == 1 else torch.device("cpu")
    with training.set_default_dtype(dtype), place:
        built = config.instantiate(model)
    built.load_state_dict(checkpointer.load_checkpoint()[training.MODEL_KEY])
    built.requires_grad_(False)
    return worlds.spread(built.eval(), ranks)
