// Keeps a page up to date: it fetches the page again every few seconds and takes over what has changed, node by node.
// What has the focus, is scrolled or is open stays so. Forms that somebody fills in are left alone.
"use strict";
const box = document.getElementById("live");
const main = document.getElementById("main");
const kept = "orchestra-live";
box.checked = localStorage.getItem(kept) !== "off";
box.addEventListener("change", () => localStorage.setItem(kept, box.checked ? "on" : "off"));

function isInUse(node) {
  return node.nodeName === "FORM" && (node.dataset.changed || node.contains(document.activeElement));
}

function adopt(old, fresh) {
  if (isInUse(old)) return;
  if (old.nodeName !== fresh.nodeName || old.id !== fresh.id) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  after.forEach((node, index) => (index < before.length ? adopt(before[index], node) : old.append(node)));
  before.slice(after.length).forEach((node) => isInUse(node) || node.remove());
}

// A list may have moved under the reader: the focus stays on the link, and not on the place.
function adoptPage(fresh) {
  const focused = document.activeElement;
  const link = main.contains(focused) ? focused.getAttribute("href") : null;
  adopt(main, fresh);
  if (link === null || document.activeElement.getAttribute("href") === link) return;
  const moved = main.querySelector(`a[href="${CSS.escape(link)}"]`);
  (moved ?? main).focus({ preventScroll: true });
}

async function refresh() {
  if (!box.checked || document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("main");
    if (fresh && box.checked) adoptPage(fresh);
  } catch { /* the server is away; the next try may find it */ }
}

main.addEventListener("input", (event) => { const form = event.target.closest("form"); if (form) form.dataset.changed = "yes"; });
if (!document.querySelector("form[method=post]:not([data-keep])")) setInterval(refresh, 2000);
