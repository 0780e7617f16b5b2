// Keys: letters for what the page offers, "g" and a letter for other pages, j and k for rows. They
// rest in fields, with modifiers and in dialogs; the help lists what the page really has.
"use strict";
(() => {
  const shell = document.getElementById("shell"), help = document.getElementById("keys"), shown = (e) => e.getClientRects().length > 0;
  if (!shell || !help) return;
  const on = shell.dataset.keys !== "off";
  const all = (selector) => [...document.querySelectorAll(selector)];
  const rows = () => all("main tr.rowlink a.cover, main .feed li > a").filter(shown);
  const places = () => all("[data-go]");
  const keyed = () => all("[data-key]").filter(shown);
  const live = () => document.getElementById("go-live");
  const current = () => document.activeElement.closest("tr.rowlink[data-anomaly]");
  const LABELS = { 1: "real", 2: "false_alarm", 3: "expected", u: "" };
  let going = 0;

  // ---- What each key does
  const use = (element) => {
    if (element.matches("input, textarea, select")) { element.focus(); element.scrollIntoView({ block: "nearest" }); }
    else element.click();
  };
  const step = (by) => {
    const list = rows(), at = list.indexOf(document.activeElement);
    const next = list[at < 0 ? (by > 0 ? 0 : list.length - 1) : at + by];
    if (!next) return false;
    next.focus(); next.scrollIntoView({ block: "nearest" });
    return true;
  };
  const label = (row, value) => {
    const cell = row.querySelector(".labelled");
    if (!cell || !document.getElementById("bulk")) return false;
    htmx.ajax("POST", row.dataset.anomaly, { source: cell, target: `#${cell.id}`, swap: "outerHTML", values: { label: value } });
    return true;
  };
  const act = (key) => {
    const given = keyed().find((e) => e.dataset.key === key);
    const row = current();
    if (row && key in LABELS) return label(row, LABELS[key]);
    if (given) { use(given); return true; }
    if (key === "j" || key === "k") return step(key === "j" ? 1 : -1);
    if (key === "x" && row && row.querySelector("[name=id]")) { row.querySelector("[name=id]").click(); return true; }
    if (key === "g") { going = Date.now(); return true; }
    if (key === " " && live() && document.activeElement === document.body) { (live().getAttribute("aria-pressed") === "true" ? document.getElementById("go-paused") : live()).click(); return true; }
    return false;
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea, [contenteditable], dialog[open]")) return;
    if (event.key === "Escape") { for (const menu of all("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); } return; }
    if (!on || event.repeat && event.key !== "j" && event.key !== "k") return;
    if (going && Date.now() - going < 1500) {
      going = 0;
      const place = places().find((e) => e.dataset.go === event.key);
      if (place) { event.preventDefault(); location.href = place.href; return; }
    }
    if (event.key === "?") { event.preventDefault(); showHelp(); return; }
    if (event.key === "/" && document.getElementById("q")) { event.preventDefault(); use(shown(document.getElementById("q")) ? document.getElementById("q") : document.querySelector(".search-link")); return; }
    if (act(event.key)) event.preventDefault();
  });
  document.addEventListener("click", (event) => { for (const menu of all("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false; });

  // ---- The help
  const words = (e) => {
    if (e.dataset.says) return e.dataset.says;
    const copy = e.cloneNode(true);
    for (const part of copy.querySelectorAll("kbd, small, svg")) part.remove();
    return copy.textContent.trim().replace(/\s+/g, " ");
  };
  const entries = () => {
    const found = [];
    if (document.getElementById("q")) found.push(["Search", "/"]);
    found.push(["This help", "?"]);
    const own = keyed(), taken = new Set(own.map((e) => e.dataset.key));
    if (rows().length && !taken.has("j")) { found.push(["Next, previous row", "j", "k"], ["Open the row", "Enter"]); }
    if (document.getElementById("bulk")) found.push(["Label the row: real, false alarm, expected", "1", "2", "3"], ["Take the row's label away", "u"], ["Tick the row", "x"]);
    for (const e of own) found.push([words(e), e.dataset.key]);
    if (live()) found.push(["Live or paused", "Space"]);
    if (document.querySelector("[data-lanes]")) found.push(["Move in lanes", "←", "→", "↑", "↓"]);
    for (const e of places()) found.push([words(e.querySelector(".label") || e), "g", e.dataset.go]);
    found.push(["Close", "Esc"]);
    return found;
  };
  const showHelp = () => {
    const list = help.querySelector("dl");
    list.replaceChildren();
    if (!on) { const said = document.createElement("p"); said.className = "off"; said.textContent = "Single-letter keys are switched off in your settings."; list.append(said); }
    else for (const [what, ...keys] of entries()) {
      const line = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = what;
      for (const key of keys) { const k = document.createElement("kbd"); k.textContent = key; dd.append(k); }
      line.append(dt, dd); list.append(line);
    }
    help.showModal();
  };
  const button = document.getElementById("show-keys");
  button.hidden = false;
  button.addEventListener("click", showHelp);
})();
