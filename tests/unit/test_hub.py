"""entrypoint.hub: what needs no hub; tests/e2e/test_hub.py has the rest."""

import pytest

from entrypoint import hub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acme/tiny", ("acme/tiny", "main")),
        ("acme/tiny-1.5_b@v2.0", ("acme/tiny-1.5_b", "v2.0")),
        ("acme/tiny@refs/pr/3", ("acme/tiny", "refs/pr/3")),
        ("tiny", None),
        ("./acme/tiny", None),
        ("/acme/tiny", None),
        ("acme/../tiny", None),
        ("acme/tiny/deep", None),
        ("acme/tiny@", None),
    ],
)
def test_what_looks_like_a_repository(text: str, expected: tuple[str, str] | None):
    found = hub.parse(text)
    assert (found and (found.repo, found.revision)) == expected


@pytest.mark.parametrize(
    ("environ", "offline"),
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"TRANSFORMERS_OFFLINE": "yes"}, True),
    ],
)
def test_offline_in_the_words_of_huggingface_hub(environ: dict[str, str], offline: bool):
    assert hub.is_offline(environ) is offline
