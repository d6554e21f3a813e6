"""deploy/kafka/start.sh: what it says where something lacks, and what it hands to the broker."""

import shutil
import subprocess
from pathlib import Path

import pytest

START = Path(__file__).resolve().parents[2] / "deploy" / "kafka" / "start.sh"
TOOLS = ("bash", "cat", "cksum", "dirname", "head", "mkdir", "rm", "sed", "touch", "tr")


@pytest.fixture
def path_without_java(tmp_path: Path) -> Path:
    """A directory for PATH with what any machine has, and neither Java nor Maven."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (directory / tool).symlink_to(found)
    return directory


def start(path: Path, *arguments: str, script: Path = START) -> subprocess.CompletedProcess[str]:
    """Run the script with that PATH."""
    return subprocess.run(
        ["bash", str(script), *arguments],
        env={"PATH": str(path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def fake(directory: Path, name: str, script: str) -> None:
    """A command of that name that does what the script says."""
    command = directory / name
    command.write_text(f"#!{shutil.which('bash')}\n{script}\n")
    command.chmod(0o755)


def test_without_java_it_says_what_to_install(path_without_java: Path) -> None:
    """The message names the package, and the exit status is not 0."""
    done = start(path_without_java, "--prepare")
    assert done.returncode == 1
    assert "java is not installed" in done.stderr
    assert "apt-get install openjdk-17" in done.stderr


def test_an_old_java_is_refused(path_without_java: Path) -> None:
    """Apache Kafka 4 does not run on it: better said before the jars are fetched."""
    fake(path_without_java, "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    done = start(path_without_java, "--prepare")
    assert done.returncode == 1
    assert "java is version 11" in done.stderr


def test_without_maven_it_says_what_to_install(path_without_java: Path, tmp_path: Path) -> None:
    """In a checkout that has no jars yet."""
    fake(path_without_java, "java", "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2")
    checkout = tmp_path / "checkout" / "deploy" / "kafka"
    checkout.mkdir(parents=True)
    for name in ("start.sh", "pom.xml"):
        shutil.copy(START.with_name(name), checkout / name)
    done = start(path_without_java, "--prepare", script=checkout / "start.sh")
    assert done.returncode == 1
    assert "mvn is not installed" in done.stderr


def test_an_unknown_option_is_refused(path_without_java: Path) -> None:
    """A misspelt option must not start a broker with other settings than meant."""
    done = start(path_without_java, "--prot", "9092")
    assert done.returncode == 1
    assert "unknown option --prot" in done.stderr
    assert "--port N" in done.stderr
