"""Real object storage (moto's server) and a real web server, on loopback."""

import functools
import http.server
import threading

import forecasts
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli

pytest.importorskip("s3fs", reason="make test-remote installs it in an environment of its own")
pytestmark = [pytest.mark.remote, pytest.mark.filterwarnings("ignore")]
FLAGS = ("--missing", "skip", "--format", "csv")


@pytest.fixture(scope="module")
def bucket():
    """The address of a bucket, which has the forecasts in Hive partitions by their cutoffs."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        system = s3fs.S3FileSystem()
        system.mkdir("forecasts")
        table = pq.read_table(forecasts.LONG)
        cutoffs = table["cutoff"].cast(pa.string())
        pq.write_to_dataset(
            table.set_column(table.schema.get_field_index("cutoff"), "cutoff", cutoffs),
            "forecasts/parts",
            partition_cols=["cutoff"],
            filesystem=system,
        )
        pq.write_table(table, "forecasts/whole.parquet", filesystem=system)
        yield "s3://forecasts"
    server.stop()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A folder with the same partitions, and what its scores print."""
    folder = tmp_path_factory.mktemp("local")
    table = pq.read_table(forecasts.LONG)
    cutoffs = table["cutoff"].cast(pa.string())
    place = table.schema.get_field_index("cutoff")
    table = table.set_column(place, "cutoff", cutoffs)
    pq.write_to_dataset(table, folder / "parts", partition_cols=["cutoff"])
    return folder / "parts"


def test_a_bucket_is_read_as_a_folder_is(bucket, local):
    want = cli("score", local, *FLAGS)[:2]
    assert want[0] == 0
    for address in (f"{bucket}/parts", f"{bucket}/parts/*/*.parquet", f"{bucket}/parts/cutoff=*"):
        assert cli("score", address, *FLAGS)[:2] == want


def test_scores_are_written_to_a_bucket(bucket, tmp_path):
    assert cli("score", forecasts.LONG, *FLAGS, "-o", tmp_path / "s.parquet")[0] == 0
    assert cli("score", f"{bucket}/whole.parquet", *FLAGS, "-o", f"{bucket}/s.parquet")[0] == 0
    import s3fs

    got = pq.read_table("forecasts/s.parquet", filesystem=s3fs.S3FileSystem())
    assert got.equals(pq.read_table(tmp_path / "s.parquet"))
    gate = "--model", "Theta", "--loss", "mae", "--max", "1e9"
    assert cli("check", f"{bucket}/s.parquet", *gate)[0] == 0


def test_what_a_bucket_lacks_is_named(bucket):
    for address, expected in (
        (f"{bucket}/absent.parquet", "s3://forecasts/absent.parquet: No such file"),
        ("s3://absent/*.parquet", "s3://absent/*.parquet: "),
    ):
        status, _, err = cli("score", address)
        assert (status, expected in err) == (1, True)
    assert cli("score", forecasts.LONG, *FLAGS, "-o", "s3://absent/s.parquet")[0] == 1


def test_files_of_a_web_server(tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_args: None
    table = pq.read_table(forecasts.LONG)
    pq.write_table(table, tmp_path / "f.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "f.csv")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            for name in ("f.parquet", "f.csv"):
                want = cli("score", tmp_path / name, *FLAGS)[:2]
                assert want[0] == 0
                assert cli("score", f"{address}/{name}?signature=secret", *FLAGS)[:2] == want
            status, _, err = cli("score", f"{address}/absent.parquet?signature=secret")
            assert (status, f"error: {address}/absent.parquet: No such file" in err) == (1, True)
            status, _, err = cli("score", tmp_path / "f.csv", "-o", f"{address}/s.csv", *FLAGS)
            assert (status, f"error: {address}/s.csv: " in err) == (2, True)
        finally:
            server.shutdown()
            thread.join()
