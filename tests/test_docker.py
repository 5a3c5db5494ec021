"""The Dockerfile's steps, by hand in a clean folder; and what comes out of them, without the source."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from processes import PROVIDER, SAMPLE, free_port, poll, settings, sqlite

from relay import provider, samples

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def words(instruction: str) -> list[str]:
    """What follows each `instruction`, its lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{instruction} (.*)$", joined, re.MULTILINE)


def copied() -> list[str]:
    """What the build stage takes from the repository."""
    return [name for line in words("COPY") if "--from" not in line for name in line.split()[:-1]]


@dataclass(frozen=True)
class Installed:
    """The relay as it is in the image: from its wheel, in an environment of its own."""

    home: Path
    bin: Path

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the environment, in an empty folder."""
        environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=self.home,
            env=environ | {"RELAY_CONFIG": str(self.home / "relay.yaml")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    source = tmp_path_factory.mktemp("source")
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source / name)
    # Without a download if the builder is here already.
    here = ["--no-build-isolation"] if find_spec("hatchling") else []
    dist = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", *here, "--wheel-dir", str(dist), str(source))
    (wheel,) = dist.glob("*.whl")
    shutil.rmtree(source)
    home = tmp_path_factory.mktemp("home")
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    # What it depends on is borrowed; a path file in a borrowed folder, such as that of an editable
    # installation, is not read.
    own = sysconfig.get_path("purelib", vars={"base": environment})
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(own) / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", "utf-8")
    config = settings(free_port(), sqlite(home))
    (home / "relay.yaml").write_text(yaml.safe_dump(config), "utf-8")
    return Installed(home, environment / "bin")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_linter_is_content_with_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_all_that_is_copied_is_there_and_nothing_else_can_be() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line[1:] for line in rules if line.startswith("!")}
    for name in copied():
        assert (ROOT / name).exists()
        assert name in allowed


def test_the_image_has_two_stages_and_a_user_of_its_own() -> None:
    assert len(words("FROM")) == 2
    (user,) = words("USER")
    assert f"--uid {user} " in DOCKERFILE
    assert words("VOLUME") == words("WORKDIR")[-1:] == ["/var/lib/relay"]
    assert "RELAY_CONFIG=/etc/relay/relay.yaml" in words("ENV")[0]


def test_it_is_the_wheel_that_runs_and_not_the_source(installed: Installed) -> None:
    script = "import relay, providers; print(relay.__file__, providers.__file__)"
    done = installed.run("python", "-c", script)
    environment = str(installed.bin.parent)
    assert [each.startswith(environment) for each in done.stdout.split()] == [True, True]


def test_the_command_line_works_from_the_wheel(installed: Installed) -> None:
    done = installed.run("relay", "--help")
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert installed.run("relay", "check").returncode == 0


def test_every_provider_is_in_the_wheel(installed: Installed) -> None:
    done = installed.run("relay", "providers", "--markdown")
    assert done.returncode == 0, done.stderr
    for name in provider.names():
        assert provider.load(name).title in done.stdout


def test_the_recorded_requests_are_in_the_wheel(installed: Installed) -> None:
    done = installed.run("relay", "send", PROVIDER)
    assert done.returncode == 0, done.stderr
    assert SAMPLE in done.stdout
    assert len(done.stdout.splitlines()) == len(samples.of(PROVIDER))
    script = "from relay import provider, samples; print(sum(len(samples.of(n)) for n in provider.names()))"
    there = sum(len(samples.of(name)) for name in provider.names())
    assert installed.run("python", "-c", script).stdout.split() == [str(there)]


def test_the_images_command_serves_and_its_health_check_says_so(installed: Installed) -> None:
    """It also migrates a new database, from the migrations in the wheel."""
    port = free_port()
    command = [text.replace("8080", str(port)) for text in json.loads(words("CMD")[0])]
    check = words("HEALTHCHECK")[0].partition("CMD ")[2]
    asked = [text.replace("8080", str(port)) for text in json.loads(check)]
    assert command[:2] == ["relay", "serve"]
    assert command[-1].startswith("0.0.0.0:")
    command[-1] = command[-1].replace("0.0.0.0", "127.0.0.1")
    assert installed.run(*asked).returncode != 0
    with (installed.home / "log").open("wb") as log:
        running = subprocess.Popen(
            [installed.bin / command[0], *command[1:]],
            cwd=installed.home,
            env={**os.environ, "RELAY_CONFIG": str(installed.home / "relay.yaml")},
            stdout=log,
            stderr=log,
        )
        try:
            poll("it is healthy", lambda: installed.run(*asked).returncode == 0)
        finally:
            running.terminate()
            running.wait(60)
    assert running.returncode == 0
    assert (installed.home / "relay.db").exists()
