"""`python -m entrypoint.tune run …`: torchtune's own command line, made importable first."""

from entrypoint import noise
from entrypoint.elastic import exit_of_first_failure
from entrypoint.tune import agent, compat, cpu, stock


def main() -> None:
    """Run it, and end with the exit code of the process that failed first."""
    from torchtune._cli.tune import main as tune

    with exit_of_first_failure():
        tune()


if __name__ == "__main__":
    agent.die_with_parent()
    noise.silence()
    compat.apply()
    cpu.apply()
    stock.apply()
    agent.apply()
    main()
