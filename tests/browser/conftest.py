"""JupyterLab and a browser for the tests of what people see: both are started here, both end with the tests."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "microsoft-edge")
NEEDED = "TEXTNORM_BROWSER_NEEDED"
STARTS_WITHIN_S = 120
# A browser without a screen, that asks nobody but the server of the test.
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

SETTINGS = {
    "apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false"}',
    # All cells are in the page, not only those in sight: scrolling by script is not what is tested.
    "notebook-extension/tracker.jupyterlab-settings": '{"windowingMode": "none"}',
}


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that runs: its address, its token, the folder it shows and the artifacts of its kernels."""

    address: str
    token: str
    folder: Path
    artifacts: Path

    def page_of(self, notebook: str) -> str:
        """In a workspace of its own: JupyterLab opens again what was open in another's."""
        return f"{self.address}/lab/workspaces/{Path(notebook).stem}/tree/{notebook}?token={self.token}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder / "notebooks", folder / "artifacts")
    running.folder.mkdir()
    for place, setting in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(setting)
    own = {
        name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    own["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    places = {**own, "TEXTNORM_ARTIFACTS": str(running.artifacts), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--ServerApp.root_dir={running.folder}", f"--IdentityProvider.token={running.token}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **places}, stdout=log, stderr=log)
    try:
        wait_for(f"{running.address}/api/status?token={running.token}", server, folder / "log")
        yield running
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address, server, log):
    began = time.monotonic()
    while time.monotonic() - began < STARTS_WITHIN_S:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not answer within {STARTS_WITHIN_S} s: {log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        missing = f"no browser is installed; one of {', '.join(BROWSERS)} is needed"
        if os.environ.get(NEEDED):
            pytest.fail(f"{missing}, since {NEEDED} is set")
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    yield page
    context.close()
