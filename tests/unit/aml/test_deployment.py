"""`make aml-deploy`: its YAML, what is refused offline, and what the scoring script takes."""

import json
from pathlib import Path

import pytest

from entrypoint.errors import ExitCode, ModelError
from scripts.aml import assets, cli, deployment, score, serving, snapshot
from tests.unit.golden import check_golden

SIZE = ("--size", "Standard_NC24ads_A100_v4")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_yaml_of_a_deployment_is_as_reviewed(capsys):
    code = cli.run(["deploy", *SIZE, "--model", "a_run:3", "--tag", "team=a", "--dry-run"])
    out, err = capsys.readouterr()
    assert code == 0, err
    check_golden("aml/deployment.yaml", out)
    assert {path.name for path in deployment.CODE.iterdir()} == {"score.py", snapshot.IGNORED}


BAD_SETTINGS = {
    "no size": ((), "instance_type: none is named"),
    "unknown size": (("--size", "Standard_NC9000"), "instance_type: the VM size Standard_NC9000"),
    "endpoint": ((*SIZE, "--endpoint", "a_b"), "endpoint_name: 'a_b' is no name"),
    "deployment": ((*SIZE, "--deployment", "b"), "name: 'b' is no name"),
    "model": ((*SIZE, "--model", "a b"), "model: 'azureml:a b@latest' is no azureml:NAME"),
    "instances": ((*SIZE, "--instances", "0"), "--instances"),
    "tag": ((*SIZE, "--tag", "api_key=x"), "api_key looks like a secret"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_of_no_deployment_are_refused_by_name(capsys, name: str):
    args, complaint = BAD_SETTINGS[name]
    code = cli.run(["deploy", "--model", "m", "--endpoint", "m-1", "--dry-run", *args])
    out, err = capsys.readouterr()
    assert code in (ExitCode.USAGE, ExitCode.SETTINGS)
    assert complaint in err
    assert "the job has" not in err
    assert not out


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": None}, "model: none is named"),
        ({"environment": None}, "environment: none is named"),
        ({"instance_count": 0}, "instance_count: 0"),
        ({"code_configuration": {"code": ".", "scoring_script": "none.py"}}, "there is no file"),
        ({"code_configuration": {"code": ".", "scoring_script": "empty.py"}}, "has no init()"),
        ({"code_configuration": {"code": "."}}, "scoring_script: none is named"),
        ({"request_settings": {"request_timeout_ms": 600_000}}, "request_timeout_ms: 600000"),
        ({"environment_variables": {"HF_TOKEN": "x"}}, "environment_variables.HF_TOKEN"),
    ],
)
def test_a_deployment_that_cannot_start_is_refused_by_name(tmp_path: Path, changes, complaint):
    (tmp_path / "empty.py").touch()
    (tmp_path / "score.py").write_text("def init():\n    ...\n\ndef run(body):\n    ...\n")
    made = {
        "name": "blue", "endpoint_name": "booking", "model": "azureml:booking:1",
        "code_configuration": {"code": ".", "scoring_script": "score.py"},
        "environment": "azureml:tunecask-serving@latest",
        "instance_type": "Standard_D4s_v3", "instance_count": 1,
    }  # fmt: skip
    assert deployment.problems(made, tmp_path) == []
    (problem,) = deployment.problems({**made, **changes}, tmp_path)
    assert complaint in problem


@pytest.mark.parametrize(
    ("model", "name"),
    [("sft-20261125-1", "sft-20261125-1"), ("my_model.v2", "my-model-v2"), ("7b", "m-7b")],
)
def test_an_endpoint_is_called_after_its_model(model: str, name: str):
    assert deployment.endpoint_name(model) == name


def test_the_environment_that_serves_is_built_with_the_inference_parts():
    for dockerfile in ("Dockerfile", "Dockerfile.ubuntu2204"):
        text = (snapshot.ROOT / dockerfile).read_text("utf-8")
        made = assets.with_inference(text)
        assert "ARG INFERENCE=yes\n" in made
        assert len(made.splitlines()) == len(text.splitlines())
        # Azure ML starts what the image starts
        stage = text[text.index("AS inference-yes") : text.index("AS openssh-no")]
        assert 'CMD ["runsvdir", "/var/runit"]' in stage
        assert text.count("CMD [") == 2
        assert serving.RELEASE in stage


def test_a_request_is_a_prompt_or_messages():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Oslo?"}]
    assert score.parse(json.dumps({"messages": messages}))[0] == messages
    found, settings = score.parse('{"prompt": "Oslo?", "max_new_tokens": 8, "temperature": 0.5}')
    assert found == messages[1:]
    assert settings == {"max_new_tokens": 8, "temperature": 0.5, "seed": 0}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("Oslo?", "no JSON"),
        ('["Oslo?"]', "no object"),
        ("{}", "either prompt or messages"),
        ('{"prompt": "a", "messages": []}', "either prompt or messages"),
        ('{"prompt": "a", "top_k": 3}', "unknown key top_k"),
        ('{"prompt": " "}', "prompt is no text"),
        ('{"prompt": 3}', "prompt is no text"),
        ('{"messages": []}', "no list of messages"),
        ('{"messages": ["a"]}', "messages[0] has not just role and content"),
        ('{"messages": [{"role": "tool", "content": "a"}]}', "messages[0].role"),
        ('{"messages": [{"role": "user", "content": null}]}', "messages[0].content is no text"),
        ('{"prompt": "a", "max_new_tokens": 0}', "max_new_tokens is no number from 1 to 4096"),
        ('{"prompt": "a", "max_new_tokens": true}', "max_new_tokens is no number"),
        ('{"prompt": "a", "temperature": "hot"}', "temperature is no number"),
    ],
)
def test_a_request_that_is_none_is_refused(body: str, complaint: str):
    with pytest.raises(score.Refused) as refused:
        score.parse(body)
    assert complaint in str(refused.value)


def test_the_model_is_found_below_the_folder_of_the_endpoint(tmp_path: Path):
    with pytest.raises(ModelError, match="0 models instead of one"):
        serving.check_model(tmp_path)
    (tmp_path / "booking" / "1" / "final").mkdir(parents=True)
    (tmp_path / "booking" / "1" / "final" / "config.json").touch()
    assert score.model_folder(tmp_path) == tmp_path / "booking" / "1" / "final"
