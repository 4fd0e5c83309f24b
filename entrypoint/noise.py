"""Keeps off the screen what no user can act on."""

import logging
import warnings
from pathlib import Path

CHATTY_LOGGERS = (
    # torchao 0.17 under another torch than it was built for: CUDA extensions are skipped
    "torchao",
    # bitsandbytes 0.50 on a CPU with bf16 arithmetic, of a package that it can do without
    "bitsandbytes.backends",
    # torch 2.13 about torchao's enums
    "torch.utils._pytree",
    # lm-eval about optional arguments of custom data sets
    "lm_eval.api.task",
)


def silence() -> None:
    """Raise the level of loggers that only warn of what works all the same."""
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # torchdata 0.11 calls a function that torch 2.13 deprecates
    warnings.filterwarnings("ignore", message=".*set_vital.*")
    # torch 2.13 of torchtune's norms, whose weights are fp32: they are right, and not fused
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")


def hide_passing_files() -> None:
    """torchtune 0.6.1 names, beside a use that is not ours, files that `train` moves elsewhere."""
    logging.getLogger("torchtune.utils._logging").setLevel(logging.WARNING)


def hide_complaint_of_git() -> None:
    """lm-eval 0.4 asks git for the working folder's commit, which complains where there is none."""
    from lm_eval import evaluator
    from lm_eval.loggers.utils import get_git_commit_hash

    def in_a_checkout() -> str | None:
        here = Path.cwd()
        found = any((folder / ".git").exists() for folder in (here, *here.parents))
        return get_git_commit_hash() if found else None

    evaluator.get_git_commit_hash = in_a_checkout


def hide_loading_bars() -> None:
    """Leave the terminal to bars of work that takes time; loading a model takes a second."""
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()


def hide_gguf_bar_in_logs() -> None:
    """Keep transformers' bar for GGUF weights out of logs: 5.24 shows it whatever it is told."""
    from functools import partial

    from tqdm import tqdm
    from transformers import modeling_gguf_pytorch_utils as gguf

    # None: only in a terminal
    gguf.tqdm = partial(tqdm, disable=None)
