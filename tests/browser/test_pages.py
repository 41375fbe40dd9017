"""Every page of the demo store, as a browser shows it: complete, readable, usable by all, and
loaded from nowhere else.
"""

from urllib.parse import urlsplit

import pytest

DETAILS = {
    "/instances": "main table a[href^='/instances/']",
    "/schedules": "main table a[href^='/schedules/']",
}
MORE = (
    "/instances?held=any",
    "/instances?status=failed",
    "/instances?name=nothing-of-that-name",
    "/instances?held=nonsense",
    "/instances/nobody",
    "/instances/supplier-busy",  # many laps, of three versions
    "/instances/order-a-00",  # children
    "/instances/talk-01",  # held, with messages and streams
    "/instances/audit-trail",  # held, with a long history
    "/instances/film-sofa",  # an activity that no node has
    "/instances/supplier-slow",  # an activity that is tried again and again
    "/instances/order-christmas",  # it has not begun
)


@pytest.fixture(scope="package")
def kinds(chrome, demo):
    """Return a path of each kind of page."""
    from tests.browser.screen import Screen

    screen = Screen(chrome)
    found = [urlsplit(link).path for link in screen.open(demo).paths("nav a")]
    for listed, css in DETAILS.items():
        assert listed in found
        details = screen.open(demo + listed).paths(css)
        assert details, f"{listed} lists nothing"
        found.append(urlsplit(details[0]).path)
    return [*dict.fromkeys(found)]


@pytest.fixture(scope="package")
def paths(kinds):
    """Return the paths of all pages that the navigation leads to, and of some of each kind below."""
    return [*dict.fromkeys((*kinds, *MORE))]


@pytest.fixture(autouse=True)
def _pages_stand_still(screen, demo):
    """A page that refreshes itself takes away what a test has found on it."""
    screen.open(demo).still()


COLOURS = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"


def test_each_page_is_complete_legible_and_usable_by_all_and_loaded_from_nowhere_else(
    screen, demo, paths
):
    """One visit a page: to open one takes longer than to look at it."""
    wrong = [f"{path}: {one}" for path in paths for one in faults_of(screen, demo, path)]
    assert not wrong, "\n".join(wrong)


def faults_of(screen, demo, path):
    """Yield what is wrong with a page, by light and by dark, on a screen and on a telephone."""
    screen.size(1280)
    screen.prefer("light")
    screen.requests()
    screen.open(demo + path)
    headings = [heading.text for heading in screen.all("h1")]
    if len(headings) != 1 or not headings[0]:
        yield f"it has the headings {headings}"
    if "orchestra" not in screen.chrome.title:
        yield f"its title is {screen.chrome.title!r}"
    yield from (line for line in screen.console() if "status of 4" not in line)
    yield from screen.faults()
    colours = {}
    for scheme in ("light", "dark"):
        screen.prefer(scheme)
        yield from (f"{scheme}: {one}" for one in screen.faint())
        colours[scheme] = screen.ask(COLOURS)
    if any(one == other for one, other in zip(*colours.values(), strict=True)):
        yield f"it does not follow the reader's choice: {colours}"
    screen.size(400)
    yield from (f"on a telephone: {one}" for one in screen.sideways())
    yield from (f"it asks {url}" for url in screen.foreign_requests(demo))


def test_a_telephone_shows_the_longest_bar_of_the_overview_with_its_number(screen, demo):
    screen.size(400)
    screen.open(demo + "/")
    ends = screen.ask(
        "return [...document.querySelectorAll('.bars rect, .bars text')]"
        ".map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.right, box.width])"
    )
    assert len(ends) > 4
    assert all(left >= 0 and right <= 400 and width > 0 for left, right, width in ends), ends
    bars = screen.ask(
        "return [...document.querySelectorAll('.bars rect')].map((one) => one.getBoundingClientRect().right)"
    )
    numbers = screen.ask(
        "return [...document.querySelectorAll('.bars text.end')].map((one) => one.getBoundingClientRect().left)"
    )
    assert max(bars) <= min(numbers), "no number stands on a bar"


def test_each_page_is_walked_by_tab_in_the_order_of_its_text_and_shows_where_it_is(
    screen, demo, kinds
):
    screen.open(demo).still()
    for path in kinds:
        screen.open(demo + path)
        seen = []
        screen.press(screen.keys.TAB)
        while (focused := screen.focused()) is not None and len(seen) < 200:
            assert focused["ring"], f"{path}: the focus does not show on {focused}"
            assert focused["visible"], f"{path}: {focused} has the focus, and is not on the screen"
            if focused["number"] in {one["number"] for one in seen}:
                break  # it begins again
            seen.append(focused)
            screen.press(screen.keys.TAB)
        assert [one["number"] for one in seen[:1]] == ["1"], path
        assert seen[0]["href"] == "#main", f"{path} begins with {seen[0]}"
        order = screen.ask(
            "return [...document.querySelectorAll('[data-number]')].map((one) => one.dataset.number)"
        )
        assert order == [one["number"] for one in seen], path
