"""A matrix in NF4 between one library's form and another's. Pure."""

from dataclasses import dataclass

import torch

from entrypoint.methods import NF4_BLOCK


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """Numbers of 4 bits, two a byte, with a scale for each block of a row."""

    pairs: torch.Tensor
    """uint8, [rows, columns / 2]; the first of two columns has the upper bits."""
    scale: torch.Tensor
    """[rows, columns / 64], in the format that the weight was in."""

    @property
    def shape(self) -> torch.Size:
        """[rows, columns]."""
        return torch.Size((len(self.scale), NF4_BLOCK * self.scale.shape[1]))

    def rows(self, chosen: torch.Tensor) -> "Packed":
        """Some of the rows, in this order."""
        chosen = chosen.to(self.pairs.device)
        return Packed(pairs=self.pairs[chosen], scale=self.scale[chosen])


def pairs(codes: torch.Tensor) -> torch.Tensor:
    """Two codes a byte: int8, [rows, columns] -> uint8, [rows, columns / 2]."""
    codes = codes.view(torch.uint8)
    return codes[:, ::2] << 4 | codes[:, 1::2]
