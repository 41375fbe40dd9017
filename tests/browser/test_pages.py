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


def check_each(paths, look):
    """Look at each page, and name all that is wrong on all of them."""
    wrong = [f"{path}: {one}" for path in paths for one in look(path)]
    assert not wrong, "\n".join(wrong)


def test_each_page_opens_with_a_title_and_a_heading_of_its_own_and_without_an_error(
    screen, demo, paths
):
    titles = {}
    for path in paths:
        screen.open(demo + path)
        headings = [heading.text for heading in screen.all("h1")]
        assert len(headings) == 1, f"{path} has the headings {headings}"
        assert headings[0], path
        titles[path] = screen.chrome.title
        logged = [line for line in screen.console() if "status of 4" not in line]
        assert logged == [], path
    shared = {path: title for path, title in titles.items() if "orchestra" not in title}
    assert shared == {}


def test_no_page_asks_another_origin_for_anything(screen, demo, paths):
    for path in paths:
        screen.open(demo + path)
    assert screen.foreign_requests(demo) == []


def test_names_roles_tables_and_landmarks_are_as_wcag_asks(screen, demo, paths):
    check_each(paths, lambda path: screen.open(demo + path).faults())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_asks(screen, demo, paths, scheme):
    screen.prefer(scheme)
    check_each(paths, lambda path: screen.open(demo + path).faint())


def test_each_page_follows_the_readers_choice_of_light_or_dark(screen, demo, paths):
    colours = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    for path in paths:
        screen.open(demo + path)
        screen.prefer("light")
        light = screen.ask(colours)
        screen.prefer("dark")
        assert screen.ask(colours) == light[::-1] or screen.ask(colours)[0] != light[0], path


def test_no_page_is_wider_than_a_telephone(screen, demo, paths):
    screen.size(400)
    check_each(paths, lambda path: screen.open(demo + path).sideways())


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
