"""The store contract against a real MinIO."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.s3_contract import CredentialContract, S3Contract

pytestmark = pytest.mark.peer

_SCRIPT = Path(__file__).parent / "minio.sh"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """HEADWATER_TEST_MINIO, or a server of our own on a free pair of ports."""
    given = os.environ.get("HEADWATER_TEST_MINIO")
    if given:
        yield given
        return
    port = _free_pair()
    subprocess.run(["bash", str(_SCRIPT), "start", str(port)], check=True, timeout=900)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["bash", str(_SCRIPT), "stop", str(port)], check=True, timeout=60)


class MinioContract(CredentialContract, S3Contract):
    # MinIO takes the prefix of ListMultipartUploads for a whole key, and removes what was left
    # unfinished for a day by itself.
    LISTS_UPLOADS_BY_PREFIX = False


class TestMinioByObstore(MinioContract):
    DRIVER = "obstore"


class TestMinioByAiobotocore(MinioContract):
    DRIVER = "aiobotocore"


def _free_pair() -> int:
    """A port whose successor is free too: the console takes that."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
