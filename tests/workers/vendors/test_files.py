from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from pushfleet_workers.errors import CredentialError
from pushfleet_workers.vendors._files import ParsedFiles, fixed_secret, read_file


class Counting:
    """A parser that counts; a number is the only thing that it takes."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, data: bytes) -> int:
        self.calls += 1
        if not data.isdigit():
            raise ValueError("holds no number: write one")
        return int(data)


@pytest.fixture
def parse() -> Counting:
    return Counting()


@pytest.fixture
def files(parse: Counting) -> ParsedFiles[int]:
    return ParsedFiles("number_file", parse)


def test_an_unchanged_file_is_parsed_once(tmp_path: Path, files: ParsedFiles[int], parse: Counting) -> None:
    (tmp_path / "n").write_text("7")
    assert [files.get(tmp_path / "n") for _ in range(3)] == [7, 7, 7]
    assert parse.calls == 1


def test_a_changed_file_is_read_again(tmp_path: Path, files: ParsedFiles[int]) -> None:
    path = tmp_path / "n"
    path.write_text("7")
    assert files.get(path) == 7
    path.write_text("8")
    os.utime(path, ns=(0, 1))
    assert files.get(path) == 8


def test_a_file_that_another_one_replaces_is_read_again(tmp_path: Path, files: ParsedFiles[int]) -> None:
    path, other = tmp_path / "n", tmp_path / "m"
    path.write_text("7")
    other.write_text("8")
    facts = path.stat()
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert files.get(path) == 7
    other.replace(path)
    assert files.get(path) == 8


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("half a numb")])
def test_a_file_that_is_gone_or_broken_leaves_the_last_good_one(
    tmp_path: Path, files: ParsedFiles[int], spoil: object
) -> None:
    path = tmp_path / "n"
    path.write_text("7")
    assert files.get(path) == 7
    spoil(path)
    assert files.get(path) == 7
    with pytest.raises(CredentialError):
        files.load(path)
    path.write_text("89")
    assert files.get(path) == 89


def test_without_a_good_file_the_error_names_setting_path_and_mend(tmp_path: Path, files: ParsedFiles[int]) -> None:
    path = tmp_path / "n"
    with pytest.raises(CredentialError, match=r"^number_file .*/n does not exist: "):
        files.get(path)
    path.write_text("x")
    with pytest.raises(CredentialError, match=r"^number_file .*/n holds no number: write one$"):
        files.get(path)


def test_a_folder_is_no_credential(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="cannot be read"):
        read_file("key_file", tmp_path)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CredentialError, match="may not be read"):
        read_file("key_file", tmp_path / "k")


def test_a_fixed_secret_is_read_again_within_a_minute_and_stays_in_the_process(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("first\n")
    answer = fixed_secret("app_secret", None, tmp_path / "secret")
    assert (answer.value, answer.life_s, answer.shared, answer.failure) == ("first", 60.0, False, None)
    (tmp_path / "secret").write_text("second\n")
    assert fixed_secret("app_secret", None, tmp_path / "secret").value == "second"


@pytest.mark.parametrize("secret", ["two\nlines", "sécret", "a\x00b"])
def test_a_secret_that_no_header_can_carry_is_refused_without_showing_it(tmp_path: Path, secret: str) -> None:
    with pytest.raises(CredentialError, match=r"^app_secret holds more than a secret: copy it alone") as refused:
        fixed_secret("app_secret", SecretStr(secret), None)
    assert secret not in str(refused.value)
