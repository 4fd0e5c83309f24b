"""A metric logger of torchtune's kind that notes the end of each step."""

from notes import Notes


class StepLogger(Notes):
    """Told of a step when it has ended, by torchtune's recipes and by Tunecask's loop."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)

    def log_config(self, *_: object) -> None:
        pass

    def log(self, *_: object) -> None:
        pass

    def log_dict(self, payload: dict[str, float], step: int) -> None:
        self.note(payload["loss"])

    def close(self) -> None:
        pass
