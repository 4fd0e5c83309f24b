"""docs/commands.md: every command with its options, from click. Pure."""

import click

from entrypoint.cli import train

HEAD = """# Commands

Every command with all its options, as `--help` prints them. The file is written by `make golden`.
Every option is also a variable, which its help names; an option on the command line wins.
"""


def render() -> str:
    """The page."""
    parts = [HEAD, section("train", train)]
    parts += [section(f"train {name}", command) for name, command in sorted(train.commands.items())]
    return "\n".join(parts)


def section(name: str, command: click.Command) -> str:
    """A heading and the help of a command, in a terminal of 100 columns."""
    parent = None
    if name != "train":
        parent = click.Context(train, info_name="train", **train.context_settings)
    # click leaves two free
    settings = {**train.context_settings, "terminal_width": 98}
    context = click.Context(command, info_name=name.split()[-1], parent=parent, **settings)
    return f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"
