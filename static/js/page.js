// What every page does: relative times, copying, lanes by keyboard, failed requests told.
"use strict";

const Vigil = (window.Vigil = {});

Vigil.ago = (at) => {
  const s = (Date.now() - at) / 1000;
  if (Math.abs(s) < 5) return "now";
  if (s < 0) return "in " + Vigil.duration(-s);
  return Vigil.duration(s);
};
Vigil.duration = (s) => {
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.round(s / 60)} min`;
  if (s < 86400) {
    const hours = Math.floor(s / 3600), minutes = Math.floor((s % 3600) / 60);
    return minutes ? `${hours} h ${String(minutes).padStart(2, "0")} m` : `${hours} h`;
  }
  return s < 400 * 86400 ? `${Math.round(s / 86400)} d` : `${(s / 31557600).toFixed(1)} y`;
};
Vigil.number = (v) => {
  if (v === null || v === undefined || !Number.isFinite(v)) return "–";
  const size = Math.abs(v);
  if (size >= 1e9 || (size && size < 1e-4)) return v.toPrecision(3);
  const digits = size >= 1000 || !size ? 0 : Math.max(0, 3 - Math.floor(Math.log10(size)));
  return v.toLocaleString("en-US", { maximumFractionDigits: Math.min(digits, 12) }).replace("-", "−");
};
Vigil.compact = (v) => {
  if (v === null || v === undefined) return "–";
  for (const [least, size, letter] of [[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]]) {
    if (Math.abs(v) >= least) return `${(v / size).toFixed(v / size < 100 ? 1 : 0)} ${letter}`;
  }
  return v >= 10 || Number.isInteger(v) ? Math.round(v).toLocaleString("en-US") : v.toFixed(1);
};
Vigil.score = (v) => (v === null || v === undefined ? "–" : v >= 1 ? "1.00" : (Math.min(Math.floor(v * 100 + 1e-6), 99) / 100).toFixed(2));
Vigil.severities = { low: 1, medium: 2, high: 3, critical: 4 };

// The user's zone, as the server took it; names of zones are given by the locale of their place.
Vigil.zone = document.documentElement.dataset.zone || "UTC";
{
  const locale = /^(America|US|Canada|Pacific\/Honolulu)/.test(Vigil.zone) ? "en-US" : Vigil.zone.startsWith("Australia") ? "en-AU" : "en-GB";
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const inZone = (zone) => new Intl.DateTimeFormat(locale, { timeZone: zone, hourCycle: "h23", weekday: "short", day: "numeric", month: "numeric",
    year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" });
  const own = inZone(Vigil.zone), utc = inZone("UTC");
  const parted = (format, ms) => {
    const p = Object.fromEntries(format.formatToParts(ms).map((part) => [part.type, part.value]));
    return { weekday: p.weekday, day: p.day, month: MONTHS[p.month - 1], year: p.year, time: `${p.hour}:${p.minute}:${p.second}`, zone: p.timeZoneName };
  };
  Vigil.clock = (ms) => parted(own, ms);
  Vigil.absolute = (ms) => {
    const here = parted(own, ms), there = parted(utc, ms), pad = (day) => day.padStart(2, "0");
    const said = `${here.weekday} ${pad(here.day)} ${here.month} ${here.year} ${here.time} ${here.zone}`;
    if (here.day === there.day && here.time === there.time) return said;
    return `${said} · ${here.day === there.day ? "" : `${there.weekday} `}${there.time} UTC`;
  };
}

Vigil.times = () => {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time[datetime]")) {
    let text = Vigil.ago(Date.parse(time.dateTime));
    if ("ago" in time.dataset && /^\d/.test(text)) text += " ago";
    if (time.textContent !== text) time.textContent = text;
  }
};
setInterval(Vigil.times, 5000);

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  const link = event.target.closest("[data-copy-link]");
  const button = copy || link;
  if (!button) return;
  const text = copy ? copy.parentElement.querySelector("pre").textContent : location.href;
  await navigator.clipboard.writeText(text);
  const before = button.lastChild.textContent;
  button.lastChild.textContent = "Copied";
  setTimeout(() => { button.lastChild.textContent = before; }, 1500);
});
// The clipboard exists on secure origins and localhost only.
const offerCopying = () => {
  for (const button of document.querySelectorAll("[data-copy-link]")) button.hidden = !navigator.clipboard;
  if (!navigator.clipboard) for (const button of document.querySelectorAll("[data-copy]")) button.hidden = true;
};
offerCopying();

document.addEventListener("change", (event) => {
  // htmx hears what is inside its form only; a control elsewhere on the page names its form.
  const { target } = event, apart = target.form && target.hasAttribute("form") && target.type !== "checkbox";
  if (target.matches("[data-submit]") || apart) target.form.requestSubmit();
});

// ---- Lanes: one stop for Tab, arrows move, Enter opens, a note says what the cell holds.
let note = null, noted = null;
const visible = (cell) => cell.offsetParent !== null;
const rowsOf = (grid) => [...grid.querySelectorAll(".lane .cells")].map((row) => [...row.children].filter(visible));
const prepareLanes = () => {
  for (const grid of document.querySelectorAll("[data-lanes]")) {
    const last = [...grid.querySelectorAll("a.cell")].filter(visible).pop();
    if (last) last.tabIndex = 0;
  }
};
// A time says its whole date where the keyboard comes by: in a row or link that holds it, or alone.
const reachTimes = () => {
  for (const time of document.querySelectorAll("main time[title]")) if (!time.closest("a, button, summary, label, tr, li")) time.tabIndex = 0;
};
// What scrolls sideways and holds nothing to focus is itself a stop for the keyboard.
const reachScrolls = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    const needed = box.scrollWidth > box.clientWidth && !box.querySelector("a[href], button, input, select, textarea, [tabindex]");
    if (needed) { box.tabIndex = 0; box.setAttribute("role", "group"); box.setAttribute("aria-label", (box.closest(".card")?.querySelector("h2, h3")?.textContent || "Table").trim()); }
    else if (box.getAttribute("role") === "group") { box.removeAttribute("tabindex"); box.removeAttribute("role"); box.removeAttribute("aria-label"); }
  }
};
addEventListener("resize", reachScrolls);
const showMoment = (focused) => {
  if (!focused.matches(":focus-visible")) return;
  const time = focused.matches("time[title]") ? focused : focused.querySelector("time[title]") || focused.closest("tr, li")?.querySelector("time[title]");
  if (!time || !time.getClientRects().length) return;
  note = document.createElement("div");
  noted = focused; note.className = "pop moment"; note.setAttribute("role", "tooltip"); note.textContent = time.title;
  document.body.append(note);
  const box = time.getBoundingClientRect();
  note.style.left = `${Math.min(Math.max(8, box.right - note.offsetWidth), innerWidth - note.offsetWidth - 8) + scrollX}px`;
  note.style.top = `${box.bottom + 6 + scrollY}px`;
};
// Whose lane and from when: up to "to 10:30" or "to now".
const placeOf = (cell) => { const said = cell.dataset.said || cell.getAttribute("aria-label"); return said.slice(0, said.lastIndexOf(" to ")); };
let asking = 0;
const hideNote = () => { clearTimeout(asking); if (note) note.remove(); note = noted = null; };
addEventListener("resize", () => hideNote());
// Which one is worst is asked for the cell that somebody looks at, not for all six hundred.
const askWorst = async (cell, line) => {
  const answer = await fetch(`/anomalies/worst${cell.search}`).catch(() => null);
  if (!answer || answer.status !== 200 || answer.redirected) return;
  line.innerHTML = (await answer.text()).trim();
  cell.dataset.worst = line.textContent;
  cell.setAttribute("aria-label", `${cell.dataset.said}. ${line.textContent}`);
};
const showNote = (cell) => {
  hideNote();
  if (!cell.matches("a.cell, .cell.silent, .cell.warming")) return;
  const said = (cell.dataset.said ||= cell.getAttribute("aria-label"));
  const [place, what] = said.split(/: (?=[^:]*$)/), at = place.lastIndexOf(", ");
  const found = /^(.*), worst (low|medium|high|critical) (.*)$/.exec(what);
  note = document.createElement("div");
  noted = cell; note.className = "pop lane-note";
  const part = (tag, css, text) => { const e = document.createElement(tag); e.className = css; e.textContent = text; return e; };
  const head = part("div", "row", ""), keys = part("div", "keys", "");
  if (found) {
    const severity = Vigil.severities[found[2]], icons = document.getElementById("shell").dataset.icons;
    head.innerHTML = `<svg class="mark sev-${severity}" aria-hidden="true"><use href="${icons}#sev-${severity}"></use></svg>`;
    head.append(part("b", `sev-${severity}`, found[2][0].toUpperCase() + found[2].slice(1)), part("b", "", found[3]));
  } else head.append(part("b", "", what[0].toUpperCase() + what.slice(1)));
  head.append(part("span", "muted", at < 0 ? place : place.slice(at + 2)));
  note.append(head);
  if (at >= 0) note.append(part("b", "", place.slice(0, at)));
  if (found) {
    const sentence = part("div", "", `${found[1]}. `), worst = part("span", "", cell.dataset.worst || "");
    worst.setAttribute("role", "status"); sentence.append(worst); note.append(sentence);
    if (!cell.dataset.worst) asking = setTimeout(askWorst, 120, cell, worst);
  }
  keys.innerHTML = `${found ? "<kbd>Enter</kbd> open " : ""}<kbd>←</kbd><kbd>→</kbd><kbd>↑</kbd><kbd>↓</kbd> move`;
  note.append(keys);
  document.body.append(note);
  const box = cell.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.right - 252), innerWidth - 272);
  note.style.left = `${left + scrollX}px`;
  note.style.top = `${box.bottom + 8 + scrollY}px`;
};
document.addEventListener("focusin", (event) => {
  const cell = event.target.closest(".lane .cell");
  if (cell) showNote(cell); else { hideNote(); showMoment(event.target); }
});
document.addEventListener("focusout", hideNote);
document.addEventListener("mouseover", (event) => {
  const cell = event.target.closest(".lane .cell");
  if (cell) showNote(cell); else if (note && !document.activeElement.matches(".lane .cell")) hideNote();
});
document.addEventListener("keydown", (event) => {
  const cell = event.target.closest(".lane .cell");
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (event.key === "Escape") hideNote();
  if (!cell || !moves[event.key]) return;
  event.preventDefault();
  const rows = rowsOf(cell.closest("[data-lanes]"));
  const y = rows.findIndex((row) => row.includes(cell)), x = rows[y].indexOf(cell);
  const [dy, dx] = moves[event.key];
  const next = (rows[y + dy] || rows[y])[x + dx] || (dy ? (rows[y + dy] || rows[y])[x] : null);
  if (!next) return;
  cell.tabIndex = -1; next.tabIndex = 0; next.focus();
});
prepareLanes();
reachTimes();
reachScrolls();

// ---- A failed request is told where it happened; the rest of the page goes on.
const tellFailure = (event, said) => {
  const target = event.detail.target;
  if (!target || target.querySelector(":scope > .note.bad")) return;
  const line = document.createElement("p");
  line.className = "note bad"; line.setAttribute("role", "alert"); line.textContent = said;
  const { elt, requestConfig } = event.detail;
  if (elt && requestConfig && requestConfig.verb === "get") {
    const again = document.createElement("button");
    again.type = "button"; again.className = "button small"; again.textContent = "Try again";
    again.addEventListener("click", () => { line.remove(); htmx.ajax("GET", requestConfig.path, { source: elt }); });
    line.append(again);
  }
  target.prepend(line);
};
document.body.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 403 || event.detail.xhr.status === 401) location.reload();
  else {
    const { xhr } = event.detail, id = xhr.getResponseHeader("X-Request-ID");
    tellFailure(event, `This part could not be read (${xhr.status}${id ? `, request ${id}` : ""}). What is shown is older.`);
  }
});
document.body.addEventListener("htmx:sendError", (event) => tellFailure(event, "The server does not answer. What is shown is older."));
document.body.addEventListener("htmx:beforeSwap", (event) => {
  // Signed out meanwhile: a whole page comes where a part was asked for.
  if (event.detail.xhr.responseURL.includes("/login/")) { event.detail.shouldSwap = false; location.reload(); }
});
// A lanes card comes anew every few seconds: whoever walks in it stays at the same cell.
let stood = null;
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id !== "lanes") return;
  const cell = document.activeElement.closest(".lane .cell");
  stood = cell ? placeOf(cell) : null;
});
const stayThere = () => {
  const grid = stood && document.querySelector("[data-lanes]");
  const cell = grid && [...grid.querySelectorAll(".lane .cell")].find((other) => placeOf(other) === stood);
  if (cell) { for (const other of grid.querySelectorAll(".cell[tabindex='0']")) other.tabIndex = -1; cell.tabIndex = 0; cell.focus(); }
  stood = null;
};
document.body.addEventListener("htmx:afterSettle", () => { Vigil.times(); prepareLanes(); reachTimes(); reachScrolls(); offerCopying(); if (noted && !noted.isConnected) hideNote(); stayThere(); });
