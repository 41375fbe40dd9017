"""What a test sees and does in the browser, and what it is told of each page."""

from __future__ import annotations

import json
from urllib.parse import urljoin, urlsplit

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from selenium_axe_python import Axe

from ops.look import browser

__all__ = ["Screen"]

PATIENCE = 60
WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")

FOCUSED = """
const one = document.activeElement;
if (!one || one === document.body) return null;
const box = one.getBoundingClientRect(), style = getComputedStyle(one);
const rings = [style.outlineStyle, style.outlineWidth, style.outlineColor, style.boxShadow].join(" ");
one.dataset.number ??= String(window.numbered = (window.numbered ?? 0) + 1);
return {
  number: one.dataset.number,
  tag: one.tagName.toLowerCase(),
  name: (one.getAttribute("aria-label") || one.innerText || one.name || one.id || "").trim().slice(0, 60),
  href: one.getAttribute("href"),
  visible: box.width > 0 && box.height > 0 && box.right > 0 && box.bottom > 0
    && box.left < innerWidth && box.top < innerHeight,
  ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 || style.boxShadow !== "none",
};
"""

SIDEWAYS = """
const page = document.documentElement;
if (page.scrollWidth <= page.clientWidth) return [];
const wide = [...document.querySelectorAll("body *")].filter(
  (one) => one.getBoundingClientRect().right > page.clientWidth + 1 && !one.closest(".scrolls, table, pre"));
return [`${page.scrollWidth} > ${page.clientWidth}`, ...wide.slice(0, 5).map((one) => one.outerHTML.slice(0, 120))];
"""

# WCAG 1.4.3 for all text, also inside pictures, which axe leaves out.
FAINT = """
const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
const brush = canvas.getContext("2d", { willReadFrequently: true });
const known = new Map();
const numbers = (colour) => {
  if (!known.has(colour)) {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
    known.set(colour, [r, g, b, a / 255]);
  }
  return known.get(colour);
};
const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
const light = (colour) => {
  const [r, g, b] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (one) => {
  const layers = [];
  for (let at = one; at; at = at.parentElement) {
    layers.push(numbers(getComputedStyle(at).backgroundColor));
    if (layers.at(-1)[3] > 0.99) break;
  }
  const page = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  return layers.reverse().reduce((back, layer) => over(layer, back), page);
};
const faint = new Set();
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const one = walk.currentNode.parentElement, words = walk.currentNode.data.trim();
  if (!words || one.closest("script, style, title, desc, option, [disabled]") || !one.checkVisibility()) continue;
  const style = getComputedStyle(one), drawn = one instanceof SVGElement, size = parseFloat(style.fontSize);
  const back = behind(drawn ? one.ownerSVGElement : one);
  const opacity = Number(style.opacity), ink = numbers(drawn ? style.fill : style.color);
  const [paper, front] = [light(back), light(over([...ink.slice(0, 3), ink[3] * opacity], back))];
  const ratio = (Math.max(front, paper) + 0.05) / (Math.min(front, paper) + 0.05);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (large ? 3 : 4.5)) faint.add(`${one.tagName} ${one.className?.baseVal ?? one.className}: ${words.slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return [...faint];
"""


class Screen:
    """A browser. Addresses are absolute, or relative to the page that it shows."""

    def __init__(self, chrome):
        self.chrome = chrome
        self.keys = Keys

    def forget(self):
        """Show an empty page of the usual size, and drop what was logged."""
        self.chrome.get("about:blank")
        self.chrome.execute_cdp_cmd(
            "Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "local_storage"}
        )
        self.size(1280, 900)
        self.prefer("light")
        self.console()
        self.requests()

    # --- how it looks ---

    def size(self, width, height=900):
        browser.size(self.chrome, width, height)

    def prefer(self, scheme):
        """Let the reader's system be light or dark."""
        browser.prefer(self.chrome, scheme)

    def open(self, address):
        self.chrome.get(urljoin(self.chrome.current_url, address))
        return self

    # --- what it shows ---

    def ask(self, script, *arguments):
        return self.chrome.execute_script(script, *arguments)

    def all(self, css):
        return self.chrome.find_elements(By.CSS_SELECTOR, css)

    def still(self):
        """Let pages refresh themselves no more."""
        self.ask("localStorage.setItem('orchestra-live', 'off')")

    def one(self, css):
        return self.chrome.find_element(By.CSS_SELECTOR, css)

    def text(self, css="main"):
        return " ".join(
            self.ask("return document.querySelector(arguments[0]).innerText", css).split()
        )

    def paths(self, css):
        """Return the paths of links."""
        return self.ask(
            "return [...document.querySelectorAll(arguments[0])].map((link) => link.getAttribute('href'))",
            css,
        )

    def until(self, condition, what=""):
        """Wait until a function returns something true, and return that."""
        waiting = WebDriverWait(
            self.chrome, PATIENCE, 0.05, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(
            lambda _: condition(), f"{what}; the page says: {self.text('body')[:2_000]}"
        )

    def until_text(self, words, css="main"):
        return self.until(lambda: words in self.text(css), f"{words!r} does not come")

    # --- what is done ---

    def press(self, *keys):
        """Press keys, wherever the focus is."""
        ActionChains(self.chrome).send_keys(*keys).perform()

    def choose(self, css, value):
        Select(self.one(css)).select_by_visible_text(value)

    def focused(self):
        """Return what has the focus, and how that shows. ``None``: nothing."""
        return self.ask(FOCUSED)

    # --- what was logged ---

    def console(self):
        """Return what pages have written to the console since the last call."""
        return [entry["message"] for entry in self.chrome.get_log("browser")]

    def requests(self):
        """Return where pages have sent requests since the last call."""
        entries = [
            json.loads(entry["message"])["message"] for entry in self.chrome.get_log("performance")
        ]
        return [
            entry["params"]["request"]["url"]
            for entry in entries
            if entry["method"] == "Network.requestWillBeSent"
        ]

    def foreign_requests(self, address):
        ours = urlsplit(address).netloc
        return [
            url
            for url in self.requests()
            if urlsplit(url).scheme not in ("data", "about", "blob")
            and urlsplit(url).netloc != ours
        ]

    # --- whether everybody can use it ---

    def faint(self):
        """Return the text whose contrast is too low."""
        return self.ask(FAINT)

    def faults(self):
        """Return what axe finds on the page: the rule, and where it is broken."""
        axe = Axe(self.chrome)
        axe.inject()
        chosen = {
            "runOnly": [*WCAG, "best-practice"],
            "rules": {"color-contrast": {"enabled": False}},  # FAINT sees more, and is quick
            "resultTypes": ["violations"],
            "preload": False,
            "iframes": False,
            "elementRef": False,
        }
        found = axe.run(options=json.dumps(chosen))
        return [
            f"{violation['id']}: {node['html'][:160]} {_words(node)}"
            for violation in found["violations"]
            for node in violation["nodes"][:3]
        ]

    def sideways(self):
        """Return what makes the page wider than the screen."""
        return self.ask(SIDEWAYS)


def _words(node):
    checks = [*node["any"], *node["all"], *node["none"]]
    return "; ".join(check["message"] for check in checks)[:200]
