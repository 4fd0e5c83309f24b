"""`train`: the commands, and the one place where errors become exit codes."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from entrypoint import noise, secrets
from entrypoint.commands import (
    chat,
    compare,
    completion,
    doctor,
    dpo,
    evaluate,
    export,
    kd,
    models,
    plan,
    prepare,
    quantize,
    replay,
    report,
    runs,
    sft,
    tune,
)
from entrypoint.errors import ExitCode, Interrupted, TrainError, fitted

BUG = "This is a bug in Tunecask. Run `train --debug …` and report what it prints."


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--debug", is_flag=True, envvar="TRAIN_DEBUG", help="Show a traceback when something fails."
)
@click.version_option(package_name="tunecask", prog_name="train")
@click.pass_context
def train(context: click.Context, debug: bool) -> None:
    """Fine-tune, evaluate and quantize language models.

    Without arguments a command works on a small built-in model and data set, offline, on a CPU:
    `train sft --then eval,quantize` shows everything in a few minutes.
    """
    context.obj = debug
    os.environ.update(secrets.read_files(os.environ))


train.add_command(sft.sft)
train.add_command(dpo.dpo)
train.add_command(kd.kd)
train.add_command(evaluate.evaluate)
train.add_command(compare.compare)
train.add_command(report.report)
train.add_command(runs.runs)
train.add_command(replay.replay)
train.add_command(quantize.quantize)
train.add_command(export.export)
train.add_command(chat.chat)
train.add_command(models.models)
train.add_command(plan.plan)
train.add_command(prepare.prepare)
train.add_command(doctor.doctor)
train.add_command(tune.tune)
train.add_command(completion.completion)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `train` and exit with the code that errors.ExitCode documents."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _terminated(number: int, _: object) -> None:
    raise Interrupted(number, "interrupted")


def run(arguments: Sequence[str]) -> int:
    """Run `train`, say what goes wrong on standard error, and return the exit code for it."""
    noise.silence()
    debug = "--debug" in arguments[:1] or os.environ.get("TRAIN_DEBUG", "").lower() in (
        "1",
        "true",
        "yes",
    )
    try:
        train.main(args=list(arguments), prog_name="train", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        said = io.StringIO()
        error.show(file=said)
        click.echo(fitted(said.getvalue()), err=True)
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return _report("interrupted", ExitCode.SIGINT, debug)
    except TrainError as error:
        return _report(str(error), error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is gets a code
        return _report(f"{type(error).__name__}: {error}\n{BUG}", ExitCode.BUG, debug)
    return ExitCode.OK


def _report(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(fitted(f"Error: {message}"), err=True)
    return code


if __name__ == "__main__":
    main()
