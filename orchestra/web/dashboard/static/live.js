// Keeps a page up to date: the server says which topics have changed, and the script takes over the parts of the
// page that look different. It leaves alone what somebody fills in, and does nothing in a tab that is hidden.
"use strict";

const body = document.body;
const box = document.getElementById("live");
const state = document.getElementById("live-state");
const KEPT = "orchestra-live";
const POLL = 5000;
const topics = JSON.parse(body.dataset.topics || "[]");
const skew = Date.parse(body.dataset.now) - Date.now(); // ages count from the store's clock

let source = null;
let poll = null;
let wanted = false;
let running = false;

// --- ages ---------------------------------------------------------------------------------------

function words(seconds) {
  const size = Math.abs(seconds);
  if (size < 10) return `${size.toFixed(1)} s`;
  if (size < 60) return `${Math.round(size)} s`;
  const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
  for (const [whole, unit, part, small] of units) {
    if (size >= whole) {
      const count = Math.floor(size / whole), rest = Math.floor((size % whole) / part);
      return `${count.toLocaleString("en")} ${unit}` + (rest && count < 10 ? ` ${rest} ${small}` : "");
    }
  }
  return "";
}

function writeAges() {
  const now = Date.now() + skew;
  for (const age of document.querySelectorAll("time.age")) {
    const seconds = (now - Date.parse(age.dateTime)) / 1000;
    const text = seconds < 0 ? `in ${words(seconds)}` : words(seconds) + (age.classList.contains("ago") ? " ago" : "");
    if (age.textContent !== text) age.textContent = text;
  }
}

// --- taking over a fresh page -------------------------------------------------------------------

const served = new Map(); // what the server said of each part, but for ages: the script itself writes those
const said = (part) => part.innerHTML.replace(/(<time class="age[^>]*>)[^<]*/g, "$1");
for (const part of document.querySelectorAll("[data-live]")) served.set(part.id, said(part));

function isInUse(part) {
  if (part.querySelector("form[data-changed]")) return true;
  const focused = document.activeElement;
  return part.contains(focused) && focused.closest("form") !== null;
}

function takeOver(page) {
  for (const fresh of page.querySelectorAll("[data-live]")) {
    const part = document.getElementById(fresh.id);
    if (!part || served.get(fresh.id) === said(fresh) || isInUse(part)) continue;
    const open = [...part.querySelectorAll("details[open]")].map((one) => [...part.querySelectorAll("details")].indexOf(one));
    const scrolled = [...part.querySelectorAll(".scrolls")].map((one) => one.scrollLeft);
    const focused = part.contains(document.activeElement) ? pathOf(document.activeElement) : null;
    served.set(fresh.id, said(fresh));
    part.className = fresh.className;
    part.innerHTML = fresh.innerHTML;
    open.forEach((number) => part.querySelectorAll("details")[number]?.setAttribute("open", ""));
    part.querySelectorAll(".scrolls").forEach((one, number) => { if (number in scrolled) one.scrollLeft = scrolled[number]; });
    if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
    part.classList.add("is-fresh");
    setTimeout(() => part.classList.remove("is-fresh"), 1300);
  }
  writeAges();
}

function pathOf(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const address = element.getAttribute("href");
  return address === null ? null : `${element.localName}[href="${CSS.escape(address)}"]`;
}

async function refresh() {
  if (running) { wanted = true; return; }
  running = true;
  try {
    do {
      wanted = false;
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) break;
      takeOver(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } while (wanted && !document.hidden);
  } catch { /* the server is away; the next try may find it */ } finally { running = false; }
}

// --- being told ---------------------------------------------------------------------------------

function show(name, text) {
  state.dataset.state = name;
  state.title = text;
}

function stop() {
  source?.close();
  clearInterval(poll);
  source = poll = null;
  show("off", "This page does not change by itself.");
}

function startPolling() {
  source?.close();
  source = null;
  clearInterval(poll);
  poll = setInterval(refresh, POLL);
  show("polling", "The page looks for changes every few seconds.");
}

function start() {
  if (document.hidden || !box.checked || !topics.length || source || poll) return;
  if (!window.EventSource) { startPolling(); return; }
  const asked = topics.map((topic) => `topic=${encodeURIComponent(topic)}`).join("&");
  source = new EventSource(`${body.dataset.base}/changes?${asked}`);
  source.onopen = () => { show("live", "The page shows changes as they happen."); refresh(); };
  source.onmessage = () => refresh();
  source.onerror = () => { if (!source || source.readyState === EventSource.CLOSED) startPolling(); };
}

document.addEventListener("visibilitychange", () => { stop(); start(); });
window.addEventListener("pagehide", stop);
window.addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; start(); });
document.addEventListener("input", (happened) => { const form = happened.target.closest("form"); if (form) form.dataset.changed = "yes"; });
box.checked = localStorage.getItem(KEPT) !== "off";
box.addEventListener("change", () => { localStorage.setItem(KEPT, box.checked ? "on" : "off"); stop(); start(); });
if (!topics.length) box.closest(".live").hidden = true;

// --- numbers of the tabs, and where a picture begins ----------------------------------------------

const tabs = document.getElementById("tabs");

async function count() {
  if (!tabs || [...tabs.querySelectorAll("a b")].every((one) => one.textContent.trim())) return;
  try {
    const answer = await fetch(`${tabs.dataset.counts}&format=json`);
    if (!answer.ok) return;
    const { counts, searched } = await answer.json();
    for (const tab of tabs.querySelectorAll("a")) {
      const number = counts[tab.dataset.tab], place = tab.querySelector("b");
      if (number !== undefined && !place.textContent.trim()) place.textContent = number.toLocaleString("en") + (searched ? "+" : "");
    }
    if (searched) tabs.title = `Counted among the newest ${searched.toLocaleString("en")} instances`;
  } catch { /* they stay empty */ }
}

for (const picture of document.querySelectorAll(".scrolls.to-end")) picture.scrollLeft = picture.scrollWidth;
// A form is sent once, also by a double click.
document.addEventListener("submit", (happened) => { if (happened.target.dataset.sent) happened.preventDefault(); happened.target.dataset.sent = "yes"; });
setInterval(writeAges, 1000);
start();
count();
