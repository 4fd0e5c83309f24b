"""Runs several recipes one after the other in one world: `torchrun … several.py RECIPE.yaml…`"""

import sys

from entrypoint.tune import compat

compat.apply()

from omegaconf import OmegaConf  # noqa: E402

from entrypoint.tune import recipe, worlds  # noqa: E402
from entrypoint.tune.stopping import Stop  # noqa: E402

if __name__ == "__main__":
    ranks = worlds.join("cpu")
    try:
        for path in sys.argv[1:]:
            recipe.train(OmegaConf.load(path), ranks, Stop())
    finally:
        worlds.leave()
