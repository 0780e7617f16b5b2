// Incidents: what changed is read again at once, unless somebody is amid it; then a button says so.
"use strict";
(() => {
  const QUIET_MS = 500;
  const table = () => document.getElementById("table"), one = () => document.getElementById("incident");
  const pause = document.getElementById("go-paused");
  const waiting = new Set();
  let all = false, timer = 0, over = false;
  const paused = () => pause && pause.getAttribute("aria-pressed") === "true";
  const amid = (box) => over || box.contains(document.activeElement);
  const read = (force) => {
    timer = 0;
    if (!all && !waiting.size) return;
    if (document.hidden || paused()) { timer = setTimeout(read, QUIET_MS); return; }
    if (one()) {
      if (all || waiting.has(+one().dataset.number)) htmx.trigger(one(), "vigil:changed");
    } else if (table()) {
      const show = document.getElementById("incidents-show");
      if (force !== true && amid(table()) && show) {
        show.hidden = false;
        show.textContent = all ? "Changed, show" : `${waiting.size} changed, show`;
        return;
      }
      htmx.trigger(table(), "vigil:changed");
    }
    waiting.clear(); all = false;
  };
  document.addEventListener("vigil:incidents", (event) => {
    const numbers = event.detail;
    if (numbers) for (const n of numbers) waiting.add(n); else all = true;
    if (!timer) timer = setTimeout(read, QUIET_MS);
  });
  document.addEventListener("click", (event) => { if (event.target.closest("#incidents-show")) { document.activeElement.blur(); read(true); } });
  document.addEventListener("pointerover", (event) => { over = Boolean(event.target.closest && event.target.closest("#table tbody")); });
  document.addEventListener("pointerout", (event) => { if (!event.relatedTarget) over = false; });
  document.addEventListener("focusout", () => { if ((all || waiting.size) && !timer) timer = setTimeout(read, QUIET_MS); });
})();
