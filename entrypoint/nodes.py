"""Training on several nodes: node 0 decides, the others find the same inputs and train along."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from entrypoint import allocator, inputs, launch, topology
from entrypoint.command import tune_command
from entrypoint.data.dataset import Dataset
from entrypoint.errors import Interrupted, SettingsError, TrainError
from entrypoint.files import write_text
from entrypoint.models.card import Model
from entrypoint.models.identity import mark, pinned
from entrypoint.plan import Plan
from entrypoint.progress import say
from entrypoint.run_folder import RunFolder
from entrypoint.settings import Settings
from entrypoint.team import Team

ORDERS, INPUTS = "orders", "inputs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """What node 0 has decided, for the others."""

    recipe: str
    """The rendered YAML, with node 0's paths."""
    name: str
    """Of the recipe, for `tune run`."""
    settings: dict[str, Any]
    """That every node has to follow."""
    master: tuple[str, int]
    """Where node 0's torchrun is met."""
    root: str
    """Node 0's run folder, which the others do not write to."""


def announce(team: Team, plan: Plan, recipe: str) -> None:
    """Tell the other nodes what is decided.

    Args:
        recipe: the rendered YAML.
    """
    if plan.world.nodes == 1:
        return
    settings = {
        "objective": plan.settings.objective,
        "model": pinned(plan.model),
        "teacher": pinned(plan.teacher) if plan.teacher else plan.settings.teacher,
        "data": absolute(plan.settings.data),
        "device": plan.world.device,
        "dtype": plan.world.dtype,
        "nproc_per_node": plan.world.processes,
        "grace": plan.settings.grace,
        "then": plan.settings.then,
        "shared_storage": plan.settings.shared_storage,
    }
    orders = Orders(
        recipe=recipe,
        name=plan.recipe,
        settings=settings,
        master=team.start.master,
        root=str(plan.folder.root),
    )
    team.tell({ORDERS: asdict(orders)})


def show_inputs(team: Team, plan: Plan) -> None:
    """Tell the other nodes where node 0 has the inputs, now that it has them, and their marks."""
    if plan.world.nodes > 1:
        team.tell({INPUTS: marked(plan.model, plan.dataset, plan.teacher)})


def help_out(settings: Settings, environ: Mapping[str, str], team: Team) -> None:
    """The part of a node that is not node 0."""
    start = team.start
    say(f"node {start.node} of {start.nodes} is waiting for what node 0 decides")
    heard = team.hear(ORDERS)
    if heard is None:
        return
    orders = Orders(**heard)
    host, port = orders.master
    start = replace(start, master=(host, port))
    settings = followed(settings, orders.settings)
    try:
        machine = topology.detect(settings.device, settings.dtype)
        world = topology.trained_by(machine, start, settings.nproc_per_node)
        moved = _places(settings, environ, team)
    except TrainError as error:
        error.where = f"{error.where or 'here'}, on node {start.node}"
        raise
    with TemporaryDirectory(prefix="tunecask-") as scratch:
        folder = RunFolder(root=Path(scratch) / "run")
        recipe = relocated(orders.recipe, moved | {orders.root: str(folder.root)})
        write_text(folder.recipe, recipe)
        command = tune_command(orders.name, folder.recipe, world, environ, allocator.find(), start)
        say(f"node {start.node} of {start.nodes} is training, in {world.processes} processes")
        try:
            launch.train(
                folder, command, environ, sys.stdout, grace=settings.grace, abort=team.abort
            )
        except TrainError as error:
            # the log goes with the scratch folder
            if error is not team.abort.error:
                error.where = f"the output of node {start.node}"
            if isinstance(error, Interrupted):
                error.what = "training was interrupted; checkpoints are node 0's"
                error.hint = "start the job again, with --resume auto"
            raise
    say(f"node {start.node} has trained and is waiting for node 0 to end")
    team.follow()


def followed(own: Settings, ordered: Mapping[str, Any]) -> Settings:
    """What node 0 has decided, for this node. Inputs that it was given as paths of its own stay so:
    mounts may differ from node to node."""
    kept = {
        name: absolute(getattr(own, name))
        for name in ("model", "teacher", "data")
        if not ordered["shared_storage"]
        and ordered[name]
        and Path(ordered[name]).is_absolute()
        and Path(getattr(own, name) or "").is_absolute()
        and Path(getattr(own, name)).exists()
    }
    return replace(own, **{**ordered, **kept})


def _places(settings: Settings, environ: Mapping[str, str], team: Team) -> dict[str, str]:
    """From the paths of node 0's inputs to the paths of this node's.

    Raises:
        SettingsError: a copy is not what node 0 has.
        TrainError: there is none.
    """
    shared: dict[str, list[str]] = team.hear(INPUTS) if settings.shared_storage else {}
    for name, (path, _) in shared.items():
        if not Path(path).exists():
            raise SettingsError(
                f"the {name} of node 0 is not there: {path}",
                where="--shared-storage or TRAIN_SHARED_STORAGE",
                hint="mount the same storage at the same place on every node, or leave the "
                "option out and let every node fetch its own copy",
            )
    found = inputs.find(settings, environ, dry=False)
    inputs.ensure_present(found.model, found.teacher, environ)
    own = marked(found.model, found.dataset, found.teacher)
    theirs = shared or team.hear(INPUTS) or {}
    for name, (path, expected) in theirs.items():
        if name not in own or own[name][1] != expected:
            raise SettingsError(
                f"the {name} of this node and of node 0 are not the same: "
                f"{own.get(name, ('none',))[0]} and, there, {path}",
                where="--model and --data",
                hint="give every node the same files",
            )
    return {path: own[name][0] for name, (path, _) in theirs.items()}


def relocated(recipe: str, places: Mapping[str, str]) -> str:
    """The recipe with paths of one node replaced by those of another.

    Args:
        recipe: YAML.
        places: from paths there to paths here; what lies below them moves with them.
    """

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [moved(inner) for inner in value]
        if isinstance(value, str):
            for there, here in places.items():
                if value == there or value.startswith(there + os.sep):
                    return here + value[len(there) :]
        return value

    text: str = yaml.safe_dump(moved(yaml.safe_load(recipe)), sort_keys=False)
    return text


def marked(
    model: Model, dataset: Dataset, teacher: Model | None = None
) -> dict[str, tuple[str, str]]:
    """Path of each input, and what tells whether a copy of it is the same."""
    found = {
        "model": (str(model.folder), mark(model)),
        "training rows": (str(dataset.train.path), dataset.train.sha256),
    }
    if teacher:
        found["teacher"] = (str(teacher.folder), mark(teacher))
    if dataset.evaluation:
        found["held-out rows"] = (str(dataset.evaluation.path), dataset.evaluation.sha256)
    return found


def absolute(reference: str) -> str:
    """A reference to rows without a working directory, where it is a path."""
    path = Path(reference).expanduser()
    return str(path.absolute()) if path.exists() else reference
