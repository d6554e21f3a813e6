"""Apache Kafka as a child process, with the same interface as the embedded broker.

In: a directory for the log and the data. Out: a :class:`~deploy.embedded.services.Server`.
Errors: :class:`~deploy.embedded.services.ServiceError`; the message says if Java or Maven is missing.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.embedded.services import Server, ServiceError, free_port, kafka_answers

START = Path(__file__).with_name("start.sh")
FETCH_TIMEOUT_S = 300.0


def fetch_jars() -> None:
    """Bring the jars to ``build/kafka/libs``, once.

    Raises:
        ServiceError: Java or Maven is missing, or the download failed; the message says which.
    """
    done = subprocess.run(  # noqa: S603 (a script of this repository)
        [str(START), "--prepare"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceError(f"Apache Kafka cannot be started: {done.stderr.strip()}")


def kafka_broker(
    directory: Path, *, port: int | None = None, properties: Mapping[str, str] | None = None
) -> Server:
    """One broker whose data lies in ``directory`` and outlives a restart.

    Args:
        directory: For ``broker.log`` and the data.
        port: Fixed port; by default a free one.
        properties: More lines of the broker's configuration.

    Raises:
        ServiceError: The jars are missing and cannot be fetched.
    """
    fetch_jars()
    controller_port = free_port()

    def command(port: int) -> list[str]:
        options = {
            "--port": str(port),
            "--controller-port": str(controller_port),
            "--data-dir": str(directory / "data"),
        }
        words = [word for option in options.items() for word in option]
        for name, value in (properties or {}).items():
            words += ["--property", f"{name}={value}"]
        return [str(START), *words]

    return Server(
        "Apache Kafka",
        command=command,
        answers=kafka_answers,
        log_path=directory / "broker.log",
        port=port,
        start_timeout_s=60.0,
    )
