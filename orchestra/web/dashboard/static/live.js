// Keeps a page up to date: it fetches the page again every few seconds and takes over what has changed. Forms that
// somebody fills in are left alone.
"use strict";
const box = document.getElementById("live");
const main = document.getElementById("main");
const kept = "orchestra-live";
box.checked = localStorage.getItem(kept) !== "off";
box.addEventListener("change", () => localStorage.setItem(kept, box.checked ? "on" : "off"));

function isInUse() {
  const focused = document.activeElement;
  return focused && focused !== main && main.contains(focused) && focused.closest("form") !== null;
}

async function refresh() {
  if (!box.checked || document.hidden || isInUse() || document.querySelector("main form[data-changed]")) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("main");
    if (fresh && !isInUse() && fresh.innerHTML !== main.innerHTML) main.innerHTML = fresh.innerHTML;
  } catch { /* the server is away; the next try may find it */ }
}

main.addEventListener("input", (event) => { const form = event.target.closest("form"); if (form) form.dataset.changed = "yes"; });
if (!document.querySelector("form[method=post]:not([data-keep])")) setInterval(refresh, 2000);
