"""The state of training as plain tensors and facts, whatever the number of processes.

Trained weights and the optimizer's state are whole tensors under the weights' names, so a job of
one size can go on with what a job of another size left.
"""

from typing import Any, cast

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

from entrypoint.errors import SettingsError
from entrypoint.tune.worlds import Ranks

WEIGHT, OPTIMIZER, RNG = "weight/", "optimizer/", "rng/"


def capture(
    model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Trained weights, optimizer and random numbers; all processes must call it, and the first
    gets it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights, moments = cast(Any, get_state_dict(model, optimizer, options=options))
    generators = ranks.gathered(random_numbers(ranks.device))
    if not ranks.leads:
        return {}, {}
    tensors = {WEIGHT + name: tensor for name, tensor in weights.items()}
    plain: dict[str, dict[str, Any]] = {}
    for name, values in moments["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{OPTIMIZER}{name}/{key}"] = value
            else:
                plain.setdefault(name, {})[key] = value
    for rank, numbers in enumerate(generators):
        tensors |= {f"{RNG}{rank}/{name}": state for name, state in numbers.items()}
    return tensors, {"optimizer": {"groups": moments["param_groups"], "plain": plain}}


def restore(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
    tensors: dict[str, torch.Tensor],
    facts: dict[str, Any],
) -> None:
    """Put back what `capture` gave; all processes must call it.

    Args:
        tensors: of the first process, which gives the others their part: they need no file.
        facts: of all processes.

    Raises:
        SettingsError: other weights are trained now than then.
    """
    tensors = ranks.tensors_of_the_leader(tensors)
    weights = _under(WEIGHT, tensors)
    trained = {
        # activation checkpointing puts a wrapper's name into those of its layer
        name.replace("_checkpoint_wrapped_module.", "")
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    if weights.keys() != trained:
        raise SettingsError(
            f"the checkpoint holds {len(weights)} trained weights, "
            f"of which {len(weights.keys() & trained)} are among the {len(trained)} of this run",
            where="--resume",
            hint="resume with the model and the method that the run was started with",
        )
    moments: dict[str, dict[str, Any]] = {
        name: dict(values) for name, values in facts["optimizer"]["plain"].items()
    }
    for path, tensor in _under(OPTIMIZER, tensors).items():
        name, _, key = path.rpartition("/")
        moments.setdefault(name, {})[key] = tensor
    set_state_dict(
        model,
        optimizer,
        model_state_dict=cast(Any, weights),
        optim_state_dict=cast(
            Any, {"state": moments, "param_groups": facts["optimizer"]["groups"]}
        ),
        # broadcast_from_rank0 would do what is done above, but in torch 2.13 the processes disagree
        # about the collectives of a model with frozen weights
        options=StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False),
    )
    if numbers := _under(f"{RNG}{ranks.rank}/", tensors):
        set_random_numbers(numbers, ranks.device)


def random_numbers(device: torch.device) -> dict[str, torch.Tensor]:
    """State of the generators that training on this device draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_numbers(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put back what `random_numbers` gave, on a device of any kind."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
