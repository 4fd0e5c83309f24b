"""The processes of one training job: who takes part, what they add up, how a model is spread."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

GLOO_AND_NCCL = "cpu:gloo,cuda:nccl"
LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among those of its job."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def gathered(self, value: Any) -> list[Any]:
        """The value of every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def of_the_leader(self, value: Any) -> Any:
        """What the first process holds."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def tensors_of_the_leader(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors on the CPU that the first process holds, one by one; the others give none."""
        if self.size == 1:
            return tensors
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        found = {}
        for name, (shape, dtype) in self.of_the_leader(shapes).items():
            found[name] = tensors[name] if self.leads else torch.empty(shape, dtype=dtype)
            dist.broadcast(found[name], src=0)
        return found

    def _reduced(self, values: tuple[float, ...], operation: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        # gloo carries double precision, which sums of losses are compared in
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return [float(value) for value in tensor.tolist()]


def join(device: str) -> Ranks:
    """Take part in the job that torchrun's variables describe; without them, be alone.

    Args:
        device: `cpu`, `cuda` or `mps`; of several CUDA devices each process takes its own.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    own = torch.device(device)
    if own.type == "cuda" and own.index is None:
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("gloo" if own.type == "cpu" else GLOO_AND_NCCL)
    return Ranks(rank=rank, size=size, device=own)


def leave() -> None:
    """Give up the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_loss_of_contact(error: RuntimeError) -> bool:
    """Whether a collective failed as another process has gone. gloo raises a plain RuntimeError."""
    text = str(error)
    return isinstance(error, dist.DistError) or any(sign in text for sign in LOST)


def spread(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Divide a decoder's weights among the processes (FSDP2), layer by layer; alone, keep it."""
    if ranks.size == 1:
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    for layer in model.layers:  # type: ignore[union-attr]
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model
