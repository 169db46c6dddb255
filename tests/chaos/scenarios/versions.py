"""Two versions of the fleet at once, as while one is rolled out."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from tests.chaos.nursery import ROOT
from tests.chaos.scenario import NotHere, scenario
from tests.chaos.stage import Stage

OLDER = "80a77372933c"
"""The commit that stands for an older version as long as none has been released."""


@scenario(vendors=("apns", "huawei"))
def two_versions(stage: Stage) -> None:
    """Producers, routers and workers of an older version and of this one serve one fleet, in any order."""
    older = _older_version(stage.folder / "older")
    of_older = {"PYTHONPATH": f"{older / 'producers'}:{older / 'workers'}"}
    stage.fleet.start("router", env=of_older, ready=False)
    stage.fleet.start("worker", env=of_older, ready=False)
    stage.fleet.start_all("router", "worker", "api")
    stage.fleet.wait_ready()
    per_s, count = stage.size(full=100, short=50), stage.size(full=2_000, short=150)
    with stage.load(per_s=per_s), stage.load(per_s=per_s, older=older / "producers"):
        stage.until_taken(count)
        for process in stage.fleet.living():
            if not process.env:
                process.ask_to_end()
                process.ends(30)
        stage.until_taken(stage.cloud.taken() + count)
        stage.fleet.start_all("router", "worker")
        for process in stage.fleet.living():
            if process.env:
                process.ask_to_end()
                process.ends(30)
        stage.healed()
        stage.until_taken(stage.cloud.taken() + count)


def _older_version(folder: Path) -> Path:
    """Its source: the latest release, or what this was some time ago."""
    tags = _git("tag", "--list", "v*", "--sort=-version:refname", "--no-contains", "HEAD").split()
    name = _git("rev-parse", "--verify", "--quiet", f"{tags[0] if tags else OLDER}^{{commit}}").strip()
    if not name:
        raise NotHere("the history of the repository, for an older version")
    source = subprocess.run(
        ["git", "archive", name, "producers", "workers"], cwd=ROOT, capture_output=True, check=True, timeout=60
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(source)) as archive:
        # Older than 3.11.4 Python has no filters; what git packs needs none.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else ""
