"""entrypoint.secrets: what is hidden and what is not."""

from entrypoint.secrets import Redactor


def test_values_of_secret_variables_are_replaced():
    redact = Redactor(
        {"HF_TOKEN": "hf_abcdefgh", "WANDB_API_KEY": "0123456789", "HOME": "/home/me"}
    )
    assert redact("x hf_abcdefgh 0123456789 /home/me") == "x *** *** /home/me"


def test_a_secret_that_contains_another_is_replaced_whole():
    redact = Redactor({"A_TOKEN": "12345678", "B_TOKEN": "12345678-more"})
    assert redact("12345678-more 12345678") == "*** ***"


def test_settings_with_a_secret_sounding_name_are_no_secrets():
    assert Redactor({"TOKENIZERS_PARALLELISM": "false"})("false") == "false"
    assert Redactor({})("anything") == "anything"
