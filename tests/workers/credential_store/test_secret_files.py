from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.credential_store import secret_files
from pushfleet_workers.credential_store.secret_files import SecretFile, SecretFolder, _file_name

KEY = SecretFile("AuthKey_F6G7H8J9K0.p8", b"secret")

OWNER = """
import sys, time
from pathlib import Path
from pushfleet_workers.credential_store import secret_files
secret_files.MEMORY = Path(sys.argv[1])
folder = secret_files.SecretFolder(Path(sys.argv[1]))
folder.put({"key_file": secret_files.SecretFile("k.p8", b"secret")})
print("there", flush=True)
if sys.argv[2] == "stay":
    time.sleep(60)
"""


def owner(memory: Path, how: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", OWNER, str(memory), how], stdout=subprocess.PIPE)


def test_only_we_can_read_them_and_they_keep_their_names(memory: Path, tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path / "data")
    paths = folder.put({"key_file": KEY, "ca_bundle": SecretFile("AuthKey_F6G7H8J9K0.p8", b"other")})
    assert paths["key_file"].read_bytes() == b"secret"
    assert paths["ca_bundle"].read_bytes() == b"other"
    assert {path.name for path in paths.values()} == {KEY.name}
    for path in memory.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    folder.close()
    assert list(memory.iterdir()) == []


def test_nothing_is_made_before_it_is_needed(memory: Path, tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path / "data")
    assert folder.put({}) == {}
    assert list(memory.iterdir()) == []
    folder.close()


def test_one_set_of_files_goes_and_the_others_stay(memory: Path, tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path)
    first, second = folder.put({"key_file": KEY}), folder.put({"key_file": KEY})
    folder.drop(first)
    assert not first["key_file"].exists()
    assert second["key_file"].exists()
    folder.drop(first)
    folder.close()


def test_without_a_folder_in_memory_they_lie_below_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_files, "MEMORY", tmp_path / "none")
    folder = SecretFolder(tmp_path / "data")
    (path,) = folder.put({"key_file": KEY}).values()
    assert (tmp_path / "data") in path.parents
    folder.close()
    assert list((tmp_path / "data").iterdir()) == []


def test_a_process_that_ends_leaves_nothing(memory: Path) -> None:
    process = owner(memory, "leave")
    assert process.communicate(timeout=30)[0] == b"there\n"
    assert list(memory.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_and_the_living_keep_theirs(memory: Path, tmp_path: Path) -> None:
    killed, living = owner(memory, "stay"), owner(memory, "stay")
    try:
        for process in (killed, living):
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
        assert len(list(memory.iterdir())) == 2
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        foreign = memory / "something-else"
        foreign.mkdir()
        folder = SecretFolder(tmp_path)
        folder.put({"key_file": KEY})
        assert len(list(memory.iterdir())) == 3
        assert len(list(memory.rglob("k.p8"))) == 1
        folder.close()
        assert len(list(memory.iterdir())) == 2
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()


@given(st.text(max_size=300))
def test_whatever_a_file_is_called_it_stays_where_it_belongs(name: str) -> None:
    made = _file_name(name, "key_file")
    assert made
    assert made == os.path.basename(made)
    assert made not in (".", "..")
    assert len(made.encode()) <= 100


def test_their_repr_tells_no_content() -> None:
    assert "secret" not in repr(KEY)
