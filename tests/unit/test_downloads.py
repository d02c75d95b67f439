"""Downloads: what arrives whole and unaltered is kept, and nothing else."""

import hashlib
import http.client
import io
import re
import urllib.error
import urllib.request

import pytest

from diem.config.paths import Paths
from diem.data.sets import DATASETS
from diem.errors import DiemError
from diem.files import downloads
from diem.files.downloads import DOWNLOADS, Download, download

CONTENT = bytes(range(256)) * 10_000
URL = "https://example.org/file.tar.gz"
GOOD = Download(URL, hashlib.sha256(CONTENT).hexdigest())


class Breaking(io.BytesIO):
    """A response whose connection is lost half way."""

    def read(self, size=-1):
        if self.tell() > len(CONTENT) // 2:
            raise http.client.IncompleteRead(b"", 1)
        return super().read(size)


@pytest.fixture
def answer(monkeypatch):
    """Lets every address answer with a response, or fail with an error."""

    def set_answer(response):
        def opened(self, url, timeout):
            assert url == URL
            assert timeout > 0
            if isinstance(response, Exception):
                raise response
            return response

        monkeypatch.setattr(urllib.request.OpenerDirector, "open", opened)

    return set_answer


def test_a_file_arrives(tmp_path, answer):
    answer(io.BytesIO(CONTENT))
    counts = []

    download(GOOD, tmp_path / "folder" / "file", counts.append)

    assert (tmp_path / "folder" / "file").read_bytes() == CONTENT
    assert sum(counts) == len(CONTENT)
    assert len(counts) > 1


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (io.BytesIO(CONTENT[:-1]), ["SHA256", GOOD.sha256]),
        (io.BytesIO(CONTENT[:-1] + b"x"), ["SHA256", GOOD.sha256]),
        (io.BytesIO(), ["SHA256"]),
        (Breaking(CONTENT), ["cannot be downloaded", "IncompleteRead"]),
        (urllib.error.URLError("no network"), ["cannot be downloaded (no network)"]),
        (urllib.error.HTTPError(URL, 404, "Not Found", {}, None), ["Not Found"]),
        (TimeoutError("timed out"), ["timed out"]),
    ],
)
def test_a_failed_or_wrong_download_leaves_nothing(tmp_path, answer, response, words):
    answer(response)

    with pytest.raises(DiemError) as error:
        download(GOOD, tmp_path / "file")

    for word in [URL, *words]:
        assert word in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://localhost/x", "ftp://localhost/x", "file:///etc/passwd"])
def test_connections_are_encrypted(tmp_path, url):
    with pytest.raises(DiemError, match="unknown url type"):
        download(Download(url, ""), tmp_path / "file")


def test_a_redirection_to_an_open_connection_is_refused():
    opener = downloads._opener()
    request = urllib.request.Request(URL)
    headers = http.client.HTTPMessage()
    headers["Location"] = "http://localhost/x"
    request.timeout = 1

    with pytest.raises(urllib.error.URLError, match="unknown url type: http"):
        opener.error("http", request, io.BytesIO(), 302, "Found", headers)


def test_every_file_has_an_address_and_a_checksum():
    for name, source in DOWNLOADS.items():
        assert source.url.startswith("https://")
        assert source.url.endswith(f"/{name}")
        assert re.fullmatch("[0-9a-f]{64}", source.sha256)
    # The name of these weights tells how their SHA256 begins.
    weights = DOWNLOADS[downloads.INCEPTION_WEIGHTS]
    assert weights.sha256[:8] in downloads.INCEPTION_WEIGHTS


def test_the_configuration_asks_for_files_that_are_known():
    evaluation = {"inception_weights": None, "dinov2_weights": None}
    paths = Paths({"results": "results", "experiments": {"images": {"evaluation": evaluation}}})
    asked = {paths.inception_weights("images"), paths.dinov2_weights("images")}
    of_data = DATASETS.parse({"name": "cifar10"}).downloads()

    assert asked | {paths.download(of_data)} == {f"results/downloads/{name}" for name in DOWNLOADS}
