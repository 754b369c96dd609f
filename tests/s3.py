"""A local S3 server, for tests of what is written to object storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bucket(name: str) -> Iterator[str]:
    """Yield the address of an empty bucket, such as ``s3://moto@exports``, that Airflow's object storage knows.

    :param name: the bucket's, and of a connection of its own.
    """
    import s3fs
    from airflow.sdk.io import attach
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        files = s3fs.S3FileSystem(key="k", secret="s", endpoint_url=f"http://{host}:{port}", skip_instance_cache=True)
        files.mkdir(name)
        attach("s3", name, fs=files)
        yield f"s3://{name}@{name}"
    finally:
        server.stop()
