"""Models of the hub: whole commands with the real client against a hub on the loopback."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import MIB, NAME, WEIGHTS, Launcher, Process, wait_for
from tests.hub_server import HubServer, Repo
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.e2e

TOKEN = "hf_canary_8c2e61"


class Trainer(Launcher):
    """Commands that need a model of the hub."""

    count = 0

    def fetch(self, model: str = NAME, **environment: str) -> Process:
        """The cheapest command that needs the whole model."""
        self.count += 1
        return self.train(
            "quantize", "--model", model, "--output", f"out-{self.count}", **environment
        )

    def looks(self, model: str = NAME, **environment: str) -> Process:
        """A command that reads the little that a card needs."""
        return self.train("models", model, "--json", **environment)

    def dry(self, model: str = NAME, *more: str, **environment: str) -> Process:
        return self.train("sft", "--dry-run", "--model", model, *more, **environment)

    @property
    def root(self) -> Path:
        return self.cache / "models" / "hub" / NAME.replace("/", "--")


@pytest.fixture
def trainer(server: HubServer, tmp_path: Path) -> Trainer:
    return Trainer(server, tmp_path)


def fails(process: Process, code: int, *words: str) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == code, out + error
    for word in words:
        assert word in error
    assert "Traceback" not in error
    return error


def succeeds(process: Process) -> tuple[str, str]:
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, out + error
    return out, error


def test_only_what_training_needs_is_fetched_and_is_what_the_hub_has(
    repo: Repo, server: HubServer, trainer: Trainer, wide_model: Path
):
    succeeds(trainer.fetch())
    folder = trainer.root / repo.commit
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "LICENSE", "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        WEIGHTS, "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    for path in folder.iterdir():
        assert not path.is_symlink()
        assert path.read_bytes() == (wide_model / path.name).read_bytes()
    assert server.downloads() == dict.fromkeys(names, 1)
    assert sorted(path.name for path in trainer.root.iterdir() if path.suffix != ".lock") == sorted(
        (repo.commit, "refs")
    )

    # the second run asks for the commit and for nothing else
    before = len(server.log)
    succeeds(trainer.fetch())
    assert [served.path for served in server.log[before:]] == [f"/api/models/{NAME}/revision/main"]


def test_fine_tuning_starts_from_a_model_of_the_hub(
    server: HubServer, trainer: Trainer, tiny_model: Path, rows: Path
):
    repo = server.add(NAME, tiny_model)
    arguments = (
        "sft", "--model", NAME, "--data", rows, "--max-seq-len", 128, "--max-steps", 2, "--output",
    )  # fmt: skip
    succeeds(trainer.train(*arguments, "run"))
    assert set(server.downloads().values()) == {1}
    manifest = json.loads((trainer.folder / "run" / "manifest.json").read_text())
    assert manifest["model"]["reference"] == NAME
    assert Path(manifest["model"]["folder"]) == trainer.root / repo.commit
    assert list((trainer.folder / "run" / "final").glob("*.safetensors"))

    # settings are checked before the weights are fetched
    shutil.rmtree(trainer.cache)
    before = server.sent(WEIGHTS)
    fails(trainer.train(*arguments, "other", "--set", "no.such=1"), 3, "no.such")
    assert server.downloads()[WEIGHTS] == 1
    assert server.sent(WEIGHTS) <= before + 100_001, "the header alone"


def test_shards_are_those_that_the_index_names(server: HubServer, trainer: Trainer, tmp_path: Path):
    folder = write_tiny_model(tmp_path / "sharded", shards=True)
    (folder / "model-of-another-kind.safetensors").write_bytes(b"x")
    repo = server.add(NAME, folder)
    succeeds(trainer.fetch())
    fetched = {path.name for path in (trainer.root / repo.commit).glob("*.safetensors")}
    assert len(fetched) > 1
    assert "model-of-another-kind.safetensors" not in fetched


def test_a_dry_run_reads_headers_and_writes_nothing(
    repo: Repo, server: HubServer, trainer: Trainer, tmp_path: Path
):
    before = sorted(tmp_path.rglob("*"))
    out, error = succeeds(trainer.dry())
    assert f"{trainer.root / repo.commit}" in out
    assert "downloads 19.9 MB" in error
    assert sorted(tmp_path.rglob("*")) == before
    assert server.downloads()[WEIGHTS] == 0
    assert server.sent(WEIGHTS) < 0.01 * len(repo.files[WEIGHTS])


def test_train_models_looks_at_a_repository(repo: Repo, trainer: Trainer):
    card = json.loads(succeeds(trainer.looks())[0])
    assert (card["family"], card["shards"]) == ("Llama", [WEIGHTS])
    assert (card["licence"], card["chat_template"]) == ("LICENSE", "chat_template.jinja")
    assert not trainer.cache.exists()


def test_a_folder_of_that_name_wins(server: HubServer, trainer: Trainer, tiny_model: Path):
    shutil.copytree(tiny_model, trainer.folder / NAME)
    succeeds(trainer.looks())
    assert server.log == []


def test_a_revision_is_pinned(repo: Repo, server: HubServer, trainer: Trainer):
    fails(trainer.looks(f"{NAME}@v9"), 5, "no revision v9", f"{server.url}/{NAME}/tree/main")
    pinned = f"{NAME}@{repo.commit}"
    succeeds(trainer.fetch(pinned))
    before = len(server.log)
    succeeds(trainer.looks(pinned))
    assert len(server.log) == before, "a commit that is there needs no network"


def test_offline_only_the_cache_serves(repo: Repo, server: HubServer, trainer: Trainer):
    fails(trainer.fetch(HF_HUB_OFFLINE="1"), 5, "not in the cache", "HF_HUB_OFFLINE")
    assert server.log == []
    succeeds(trainer.fetch())
    before = len(server.log)
    succeeds(trainer.dry(HF_HUB_OFFLINE="1"))
    assert len(server.log) == before


def test_without_a_network_the_copy_fetched_before_serves(
    repo: Repo, server: HubServer, trainer: Trainer
):
    succeeds(trainer.fetch())
    repo.status = 503
    assert "going on with acme/tiny as fetched before" in succeeds(trainer.looks())[1]


@pytest.mark.parametrize(
    ("settings", "token", "words"),
    [
        ({"gated": True}, None, ["is gated", "accept", "set HF_TOKEN"]),
        ({"gated": True, "token": "hf_other_token"}, None, ["is gated", "set HF_TOKEN"]),
        ({"gated": True}, TOKEN, ["is gated", "the account of HF_TOKEN", "ask for access"]),
        ({"private": True}, None, ["no such public model", "set HF_TOKEN"]),
        ({"private": True}, TOKEN, ["no such model that HF_TOKEN may see"]),
        ({"forbidden": True}, TOKEN, ["is private", "may not read it"]),
        ({"token": "hf_other_token"}, TOKEN, ["does not accept the token"]),
        ({"renamed": "acme/new"}, None, ["under another name now", "--model acme/new"]),
        ({"status": 429}, None, ["fewer requests (429)", "with HF_TOKEN"]),
        ({"status": 503}, None, ["answers with an error (503)"]),
    ],
)
def test_5_what_the_hub_refuses_is_told_with_its_reason(
    server: HubServer, trainer: Trainer, wide_model: Path,
    settings: dict[str, object], token: str | None, words: list[str],
):  # fmt: skip
    server.add(NAME, wide_model, **settings)
    server.add("acme/new", wide_model)
    environment = {"HF_TOKEN": token} if token else {}
    process = trainer.looks(**environment)
    fails(process, 5, *words, f"{server.url}/acme/")


def test_5_a_name_that_is_nowhere_is_told_with_both_places(server: HubServer, trainer: Trainer):
    fails(trainer.looks("acme/tinny"), 5, "no folder acme/tinny", f"{server.url}/acme/tinny")


def test_5_a_hub_out_of_reach_is_named(server: HubServer, trainer: Trainer):
    server.close()
    fails(trainer.looks(), 5, "cannot be reached", "HF_ENDPOINT")


def test_5_something_that_is_no_hub(server: HubServer, trainer: Trainer, repo: Repo):
    repo.describe = lambda: {"hello": "world"}  # type: ignore[method-assign]
    fails(trainer.looks(), 5, "does not answer as the hub does", "HF_ENDPOINT")


def test_5_weights_that_are_not_safetensors(server: HubServer, trainer: Trainer, repo: Repo):
    del repo.files[WEIGHTS]
    fails(trainer.dry(), 5, "pytorch_model.bin, not as safetensors", "save_pretrained")
    fails(trainer.fetch(), 5, "not as safetensors")
    out, error = succeeds(trainer.looks())
    assert json.loads(out)["shards"] == []
    assert f"has no {WEIGHTS} on the hub" in error


def test_5_a_model_without_a_tokenizer_can_be_looked_at_alone(
    server: HubServer, trainer: Trainer, repo: Repo
):
    for name in [name for name in repo.files if "token" in name or "template" in name]:
        del repo.files[name]
    card = json.loads(succeeds(trainer.looks())[0])
    assert (card["tokenizer"], card["chat_template"]) == (None, None)
    # the hub's page is named, not the folder that its files were read in
    fails(trainer.dry(), 5, "no tokenizer.json", f"{server.url}/{NAME}/tree/{repo.commit}")


def test_5_a_config_that_is_not_supported_is_named_where_it_is(
    server: HubServer, trainer: Trainer, repo: Repo
):
    repo.files["config.json"] = b'{"architectures": ["GPT2LMHeadModel"]}'
    for process in (trainer.looks(), trainer.dry()):
        fails(process, 5, "GPT2LMHeadModel is not supported", f"{server.url}/{NAME}/tree/")


def test_5_wrong_bytes_are_not_kept(server: HubServer, trainer: Trainer, repo: Repo):
    repo.wrong = {WEIGHTS}
    fails(trainer.fetch(), 5, "other bytes than it announced for model.safetensors")
    assert not (trainer.root / repo.commit).exists()
    assert not list(trainer.root.rglob(f"{WEIGHTS}*"))


def test_5_wrong_bytes_are_found_by_a_dry_run_too(trainer: Trainer, repo: Repo):
    repo.wrong = {"config.json"}
    fails(trainer.looks(), 5, "other bytes than it announced for config.json")


def test_6_a_model_larger_than_the_disk_is_refused(server: HubServer, trainer: Trainer, repo: Repo):
    huge = repo.describe()
    for sibling in huge["siblings"]:  # type: ignore[attr-defined]
        if sibling["rfilename"] == WEIGHTS:
            sibling["lfs"]["size"] = sibling["size"] = 10**18
    repo.describe = lambda: huge  # type: ignore[method-assign]
    fails(trainer.fetch(), 6, "are free", "TRAIN_CACHE")
    fails(trainer.dry(), 6, "are free", "TRAIN_CACHE")
    assert server.downloads()[WEIGHTS] == 0


def test_after_a_cut_connection_a_rerun_resumes(server: HubServer, trainer: Trainer, repo: Repo):
    repo.cut = {WEIGHTS: 10 * MIB}
    fails(trainer.fetch(), 5, "cannot be reached", "what has been fetched is kept")
    assert not (trainer.root / repo.commit).exists()
    partial = next(trainer.root.rglob("*.incomplete")).stat().st_size
    assert 8 * MIB < partial <= 10 * MIB
    repo.cut = {}
    before = len(server.log)
    _, error = succeeds(trainer.fetch())
    assert "of it are there" in error
    again = [served for served in server.log[before:] if served.file == WEIGHTS]
    assert [served.start for served in again] == [partial]
    assert server.downloads()["config.json"] == 1


def test_kill_leaves_no_whole_looking_folder_and_the_next_run_resumes(
    server: HubServer, trainer: Trainer, repo: Repo
):
    repo.rate = 2 * MIB
    process = trainer.fetch()
    wait_for(lambda: server.sent(WEIGHTS) > 4 * MIB)
    waiting = trainer.fetch()
    assert "another process is fetching" in waiting.stderr.readline()  # type: ignore[union-attr]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (trainer.root / repo.commit).exists()
    repo.rate = None
    succeeds(waiting)
    starts = [served.start for served in server.log if served.file == WEIGHTS]
    assert starts[0] == 0
    assert [start > 2 * MIB for start in starts[1:]] == [True]
    assert (trainer.root / repo.commit / WEIGHTS).read_bytes() == repo.files[WEIGHTS]


def test_three_runs_at_once_make_one_download(server: HubServer, trainer: Trainer, repo: Repo):
    repo.rate = 10 * MIB
    running = [trainer.fetch() for _ in range(3)]
    said = [succeeds(process)[1] for process in running]
    assert set(server.downloads().values()) == {1}
    assert server.sent(WEIGHTS) == len(repo.files[WEIGHTS])
    assert sum("another process is fetching" in text for text in said) == 2


def test_the_token_goes_to_the_hub_alone(
    server: HubServer, trainer: Trainer, repo: Repo, tmp_path: Path
):
    repo.token, repo.private, repo.gated = TOKEN, True, True
    out, error = succeeds(trainer.fetch(HF_TOKEN=TOKEN))
    assert TOKEN not in out + error
    assert {served.token for served in server.log if not served.storage} == {TOKEN}
    assert {served.token for served in server.log if served.storage} == {None}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


def test_a_stored_token_is_not_used(server: HubServer, trainer: Trainer, repo: Repo):
    (trainer.folder / "hf").mkdir()
    (trainer.folder / "hf" / "token").write_text(TOKEN)
    succeeds(trainer.looks())
    assert {served.token for served in server.log} == {None}


RACE = """
import math, os, shutil, time
from huggingface_hub.file_download import http_get
from huggingface_hub.utils.tqdm import silent_tqdm
from entrypoint.hub import Reference
from entrypoint.models.download import Download
from entrypoint.models.weights import named_shards

reference, url = Reference(repo="acme/tiny"), os.environ["HF_ENDPOINT"]
# the first answer waits for the server's own hash
commit = Download(reference, os.environ).snapshot.commit
address = f"{url}/acme/tiny/resolve/{commit}/model.safetensors"

def plain():
    with open("plain", "wb") as file:
        http_get(address, file, tqdm_class=silent_tqdm)
    os.unlink("plain")

def ours():
    shutil.rmtree(Download(reference, os.environ).complete(named_shards))

best = {plain: math.inf, ours: math.inf}
for _ in range(6):
    for client in best:
        began = time.perf_counter()
        client()
        best[client] = min(best[client], time.perf_counter() - began)
    ratio = best[plain] / best[ours]
    if ratio >= 0.9:
        break
print(ratio)
"""


def test_a_download_is_as_fast_as_a_plain_one(trainer: Trainer, tmp_path: Path):
    """Asking, hashing, resuming and locking cost at most a tenth beside the same client's bare
    transfer over a line of 1 Gbit/s. Without a line's limit server, client and hash compete for
    the cores, and that race says more of the machine. The best of some rounds counts."""
    source = tmp_path / "source"
    source.mkdir()
    (source / WEIGHTS).write_bytes(os.urandom(200 * MIB))
    (source / "config.json").write_text("{}")
    (tmp_path / "race.py").write_text(RACE)
    # in a process of its own, so that it does not share an interpreter with this one
    hub = trainer.start("-m", "tests.hub_server", NAME, source, 1_000_000_000 // 8)
    try:
        assert hub.stdout
        url = hub.stdout.readline().strip()
        out, _ = succeeds(trainer.start("race.py", HF_ENDPOINT=url))
    finally:
        hub.kill()
        hub.communicate()
    print(f"throughput: {float(out):.2f} of a bare transfer's")
    assert float(out) >= 0.9
