"""Pages in headless Chromium: each fails its test by an error in the console or a request elsewhere."""

import shutil
from urllib.parse import urljoin

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WAYS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("no chromium (apt: chromium)")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Return a function that opens an address; refusals it names are no errors."""
    contexts, errors = [], []

    def open_page(url, *, refusals=(), **ways):
        context = browser.new_context(**ways)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # the first gradients wait for a compiler

        def on_console(message):
            refused = any(f"status of {status}" in message.text for status in refusals)
            if message.type in ("error", "warning") and not refused:
                errors.append(message.text)

        def on_request(request):
            if not request.url.startswith((urljoin(url, "/"), "blob:", "data:")):
                errors.append(f"asked for {request.url}")

        page.on("console", on_console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", on_request)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture(params=WAYS)
def way(request):
    """How a page is looked at."""
    return WAYS[request.param]


@pytest.fixture
def check_accessible():
    """Return a function that finds faults which axe-core knows, and what does not fit the width."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page):
        results = Axe().run(page)
        assert not results.violations_count, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    return check
