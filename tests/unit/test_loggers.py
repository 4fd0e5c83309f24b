"""entrypoint.loggers: what a run's metrics go to."""

import pytest

from entrypoint import loggers
from entrypoint.errors import SettingsError


@pytest.fixture(autouse=True)
def _all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda _: object())


@pytest.mark.parametrize(
    ("wanted", "environ", "expected"),
    [
        ((), {}, ()),
        ((), {"WANDB_API_KEY": "key"}, ("wandb",)),
        ((), {"MLFLOW_TRACKING_URI": "azureml://x", "WANDB_API_KEY": "key"}, ("mlflow", "wandb")),
        ((), {"MLFLOW_TRACKING_URI": ""}, ()),
        (("tensorboard",), {"WANDB_API_KEY": "key"}, ("tensorboard",)),
        (("none",), {"WANDB_API_KEY": "key"}, ()),
    ],
)
def test_what_is_asked_for_comes_before_what_is_configured(
    wanted: tuple, environ: dict[str, str], expected: tuple
):
    assert loggers.chosen(wanted, environ) == expected


def test_none_goes_alone():
    with pytest.raises(SettingsError, match="no other logger"):
        loggers.chosen(("none", "wandb"), {})


def test_azures_tracking_needs_its_plugin(monkeypatch: pytest.MonkeyPatch):
    def only_mlflow(name: str) -> object:
        if name.startswith("azureml"):
            raise ModuleNotFoundError(name)
        return object()

    monkeypatch.setattr(loggers, "find_spec", only_mlflow)
    assert loggers.chosen((), {"MLFLOW_TRACKING_URI": "http://127.0.0.1"}) == ("mlflow",)
    with pytest.raises(SettingsError, match=r"azureml.mlflow is not installed"):
        loggers.chosen((), {"MLFLOW_TRACKING_URI": "azureml://x"})
