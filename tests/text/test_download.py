"""Downloads from a server of our own: resumed, checked, and never half a file."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from terselm.errors import TerselmError, UsageError
from terselm.text import download
from terselm.text.download import Dataset, PublicFile, get_dataset

CONTENT = {name: (f"{name} " * 20_000).encode() for name in ("one.txt", "two.txt")}


class Server(ThreadingHTTPServer):
    """Serves CONTENT; what it does wrong is set by the tests."""

    daemon_threads = True
    knows_ranges = True
    breaks_after: int | None = None
    wrong_start = False
    status: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.content = dict(CONTENT)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        name, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.server.requests.append((name, wanted))
        if self.server.status:
            self.send_error(self.server.status)
            return
        body = self.server.content[name]
        start = 0
        if wanted and self.server.knows_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            told = 0 if self.server.wrong_start else start
            self.send_header("Content-Range", f"bytes {told}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = self.server.breaks_after
        self.wfile.write(body[start:] if stop is None else body[start : start + stop])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = tuple(
        PublicFile(name, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
        for name, data in CONTENT.items()
    )
    with Server() as running:
        url = f"http://127.0.0.1:{running.server_port}/"
        monkeypatch.setattr(download, "DATASETS", {"small": Dataset(url, files)})
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_arrive_and_are_not_fetched_twice(server, tmp_path):
    told = []
    folder = get_dataset("small", tmp_path / "new", lambda done, total: told.append((done, total)))
    assert folder == tmp_path / "new"
    assert contents(folder) == CONTENT
    total = sum(map(len, CONTENT.values()))
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    get_dataset("small", folder)
    assert len(server.requests) == 2


def test_the_usual_folder_is_that_of_open_corpus(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TERSELM_CACHE", str(tmp_path))
    assert get_dataset("small") == tmp_path / "data" / "small"


def test_another_server_can_be_named(server, tmp_path, monkeypatch):
    url = download.DATASETS["small"].url
    unreachable = Dataset("http://127.0.0.1:9/", download.DATASETS["small"].files)
    monkeypatch.setattr(download, "DATASETS", {"small": unreachable})
    assert contents(get_dataset("small", tmp_path, base_url=url)) == CONTENT


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_an_interrupted_download_goes_on(server, tmp_path, knows_ranges):
    server.breaks_after = 70_000
    with pytest.raises(TerselmError, match=r"70000 of 160000 bytes.*go on where it stopped"):
        get_dataset("small", tmp_path)
    assert contents(tmp_path) == {"one.txt.part": CONTENT["one.txt"][:70_000]}
    server.breaks_after = None
    server.knows_ranges = knows_ranges
    get_dataset("small", tmp_path)
    assert contents(tmp_path) == CONTENT
    assert server.requests[1] == ("one.txt", "bytes=70000-")


def test_a_whole_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "one.txt.part").write_bytes(CONTENT["one.txt"])
    get_dataset("small", tmp_path)
    assert contents(tmp_path) == CONTENT
    assert [name for name, _ in server.requests] == ["two.txt"]


def test_a_part_that_is_too_long_is_begun_again(server, tmp_path):
    (tmp_path / "one.txt.part").write_bytes(CONTENT["one.txt"] + b"x")
    get_dataset("small", tmp_path)
    assert contents(tmp_path) == CONTENT


def test_a_server_that_answers_with_another_range(server, tmp_path):
    (tmp_path / "one.txt.part").write_bytes(CONTENT["one.txt"][:5])
    server.wrong_start = True
    with pytest.raises(TerselmError, match="another range"):
        get_dataset("small", tmp_path)
    assert not (tmp_path / "one.txt").exists()


@pytest.mark.parametrize("add", [b"", b"more"])
def test_wrong_content_is_not_kept(server, tmp_path, add):
    server.content["one.txt"] = CONTENT["one.txt"].replace(b"o", b"0") + add
    with pytest.raises(TerselmError, match=r"another content|larger") as caught:
        get_dataset("small", tmp_path)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {}
    server.content = dict(CONTENT)
    get_dataset("small", tmp_path)
    assert contents(tmp_path) == CONTENT


def test_a_file_of_the_user_is_not_overwritten(server, tmp_path):
    (tmp_path / "one.txt").write_text("mine")
    with pytest.raises(TerselmError, match="move it away"):
        get_dataset("small", tmp_path)
    assert contents(tmp_path) == {"one.txt": b"mine"}


def test_a_server_that_refuses(server, tmp_path):
    server.status = 404
    with pytest.raises(TerselmError, match=r"/one\.txt: the server says 404"):
        get_dataset("small", tmp_path)
    assert contents(tmp_path) == {}


def test_without_a_network(server, tmp_path):
    with pytest.raises(TerselmError, match=r"http://127\.0\.0\.1:9/one\.txt.*by hand") as caught:
        get_dataset("small", tmp_path, base_url="http://127.0.0.1:9")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_corpus(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'ptb'"):
        get_dataset("pbt", tmp_path)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TerselmError, match=r"in the way|cannot make"):
        get_dataset("small", tmp_path / "file" / "folder")


@pytest.mark.parametrize("name", ["ptb", "tinyshakespeare"])
def test_the_checksums_are_those_of_the_files(data_root, name):
    folder = data_root / name
    if not folder.is_dir():
        pytest.skip(f"NEEDS DATA: no {name} in TERSELM_DATA")
    for file in download.DATASETS[name].files:
        data = (folder / file.name).read_bytes()
        assert len(data) == file.size
        assert hashlib.md5(data, usedforsecurity=False).hexdigest() == file.md5
