"""What is taken out of a report."""

import pytest

from anyclaude.cli.masking import Masking

_MASKING = Masking("/Users/ada", "ada", "ada-mac.local", ("correct-horse-battery",))


def test_names_of_person_and_machine_are_masked() -> None:
    """The home folder, the user and the host do not appear in a report, in any case of letters."""
    text = "/Users/ada/models owned by Ada on ada-mac.local, ada-mac and 'adaptive' stay apart"

    assert _MASKING.apply(text) == "~/models owned by USER on HOST, HOST and 'adaptive' stay apart"


@pytest.mark.parametrize(
    "text",
    [
        "sk-ant-api03-abcdefgh",
        "Authorization: Bearer abcdefgh12345",
        '"x-api-key": "abcdefgh12345"',
        "http://abcdefgh:12345@proxy:3128",
        "socks5://abcdefgh:12345@proxy:1080",
        "vllm serve --api-key abcdefgh",
        '"--api-key",\n  "abcdefgh",\n  "--port"',
        "hf_abcdefgh12345",
        "the token is correct-horse-battery",
    ],
)
def test_keys_are_masked(text: str) -> None:
    """Keys are found by their form, and known ones by their value."""
    masked = _MASKING.apply(text)

    assert "***" in masked
    assert "abcdefgh" not in masked
    assert "correct-horse" not in masked


def test_keys_of_the_environment_are_masked() -> None:
    """A variable that is called like a key holds one; a short value is too common to be one."""
    masking = Masking.of_this_machine({"MY_API_KEY": "opensesame!", "A_TOKEN": "1", "HOME": "/"})

    assert masking.apply("opensesame! 1") == "*** 1"
