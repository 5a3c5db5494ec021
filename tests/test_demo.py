"""`relay demo`: the first thing a newcomer sees."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import PROVIDER, poll

from relay import provider, samples


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "relay", "demo", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        timeout=120,
        check=False,
    )


def rows(text: str) -> list[list[str]]:
    """The lines of the table that tell of an event: its mark, source, sample."""
    found = [line.split() for line in text.splitlines()]
    return [line for line in found if len(line) > 2 and line[0] in {"ok", "wrong"}]


def is_shown(name: str, sample: str, lines: list[list[str]]) -> bool:
    return any(line[1].startswith(name) and line[2] == sample for line in lines)


def test_the_demo_ends_well_and_shows_every_sample_of_every_provider() -> None:
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = rows(done.stdout)
    assert [line for line in lines if line[0] != "ok"] == []
    for name in provider.names():
        for sample in samples.of(name):
            assert is_shown(name, sample.name, lines), (name, sample.name)
    assert re.search(
        rf"^{len(lines)} events as they should be, 0 not; \d+ records", done.stdout, re.MULTILINE
    )


def test_the_demo_of_one_provider_shows_only_that_one() -> None:
    done = demo("--only", PROVIDER)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = rows(done.stdout)
    assert {line[1] for line in lines} == {PROVIDER}
    assert {line[2] for line in lines} == {sample.name for sample in samples.of(PROVIDER)}


def test_the_demo_of_a_provider_that_does_not_exist_says_so() -> None:
    done = demo("--only", "razorpey")
    assert done.returncode in {1, 2}
    assert "did you mean razorpay?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_stays_until_it_is_interrupted_and_leaves_nothing_behind(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    shown = tmp_path / "shown"
    with shown.open("wb") as stream:
        running = subprocess.Popen(
            [sys.executable, "-m", "relay", "demo", "--only", PROVIDER, "--stay"],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "TMPDIR": str(temporary)},
            start_new_session=True,
        )
        try:
            poll("it stays", lambda: b"Ctrl-C" in shown.read_bytes(), within=60)
            started = processes(temporary)
            assert len(started) > 3
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 0
        finally:
            running.kill()
            running.wait()
    assert processes(temporary) == set()
    assert list(temporary.iterdir()) == []


def processes(temporary: Path) -> set[int]:
    """Those that were told to keep their files there."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={temporary}".encode() in file.read_bytes().split(b"\0"):
                found.add(int(file.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("arguments", [["--nonsense"], ["extra"]])
def test_a_wrong_use_of_the_demo_is_a_2(arguments: list[str]) -> None:
    assert demo(*arguments).returncode == 2
