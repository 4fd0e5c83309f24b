"""Which loggers a run feeds beside metrics.jsonl: as asked for, or as configured."""

from collections.abc import Mapping
from importlib.util import find_spec

from entrypoint.errors import SettingsError
from entrypoint.settings import LoggerName

MODULES: dict[LoggerName, str] = {
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
}
CONFIGURED: dict[str, LoggerName] = {"MLFLOW_TRACKING_URI": "mlflow", "WANDB_API_KEY": "wandb"}
"""Variables that ask for a logger by being there. Azure ML sets the first in its jobs."""
OPTION = "--log-to or TRAIN_LOG_TO"


def chosen(wanted: tuple[LoggerName, ...], environ: Mapping[str, str]) -> tuple[LoggerName, ...]:
    """The loggers of a run.

    Args:
        wanted: as asked for; nothing leaves it to the environment, `none` wants none.

    Raises:
        SettingsError: the package of one is not installed.
    """
    if "none" in wanted:
        if len(wanted) > 1:
            raise SettingsError("none goes with no other logger", where=OPTION)
        return ()
    asked: dict[LoggerName, str] = dict.fromkeys(wanted, OPTION) or {
        name: f"the environment variable {variable}"
        for variable, name in CONFIGURED.items()
        if environ.get(variable)
    }
    for name, where in asked.items():
        _check_installed(name, MODULES[name], where)
    if "mlflow" in asked and environ.get("MLFLOW_TRACKING_URI", "").startswith("azureml:"):
        _check_installed("mlflow", "azureml.mlflow", asked["mlflow"])
    return tuple(asked)


def _check_installed(name: str, module: str, where: str) -> None:
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # the package that it is part of
        found = None
    if found is None:
        raise SettingsError(
            f"metrics are to go to {name}, and {module} is not installed",
            where=where,
            hint=f"python -m pip install 'tunecask[{name}]', or --log-to none",
        )
