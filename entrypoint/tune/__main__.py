"""`python -m entrypoint.tune run …`: torchtune's own command line, made importable first."""

from entrypoint import noise
from entrypoint.tune import compat

if __name__ == "__main__":
    noise.silence()
    compat.apply()
    from torchtune._cli.tune import main

    main()
