// One series: the threshold's draft in the address and on the chart, zoom by dragging, live values.
"use strict";
(() => {
  const chartBox = () => document.querySelector('#chart [data-chart="value"]');
  const chart = () => chartBox() && Vigil.charts.of(chartBox());
  const form = () => document.getElementById("threshold-form");
  const DRAFT = ["threshold", "direction", "least", "budget", "span"];

  // ---- The draft
  const choices = () => form().dataset.choices.split(",").map(Number);
  const nearest = (value) => choices().reduce((best, one) => (Math.abs(one - value) < Math.abs(best - value) ? one : best));
  const fill = (range) => {
    const at = (range.value - range.min) / (range.max - range.min);
    range.style.setProperty("--at", `calc(10px + ${at} * (100% - 20px))`);
    range.setAttribute("aria-valuetext", Vigil.score(+range.value));
  };
  const draft = () => {
    const f = form(), defaults = new URLSearchParams(f.dataset.defaults), given = new FormData(f), found = {};
    for (const name of DRAFT) {
      const value = given.get(name);
      const same = name === "threshold" ? Math.abs(value - f.dataset.now) < 1e-9 || (!moved && Math.abs(nearest(+f.dataset.now) - value) < 0.0051) : value === "" || value === defaults.get(name);
      if (!same) found[name] = value;
    }
    return found;
  };
  let moved = false;
  const follow = () => {
    const f = form(), found = draft(), given = new FormData(f);
    const address = new URL(location.href);
    for (const name of DRAFT) { address.searchParams.delete(name); if (found[name] !== undefined) address.searchParams.set(name, found[name]); }
    history.replaceState(history.state, "", address);
    const shown = chart();
    const changed = ["threshold", "direction", "least"].some((name) => found[name] !== undefined);
    const at = found.threshold === undefined ? nearest(+f.dataset.now) : +found.threshold;
    if (shown) { shown.vigil.draft = changed ? { threshold: at, direction: given.get("direction"), least: +given.get("least") || 0 } : null; Vigil.charts.repaint(chartBox()); }
    key();
  };
  const key = () => {
    const shown = chart(), legend = document.getElementById("draft-key");
    if (!legend) return;
    legend.hidden = !(shown && shown.vigil.draft);
    if (!legend.hidden) legend.lastElementChild.textContent = `no longer flagged at ${Vigil.score(shown.vigil.draft.threshold)}`;
  };
  document.addEventListener("input", (event) => {
    if (!event.target.form || event.target.form.id !== "threshold-form") return;
    if (event.target.type === "range") { moved = true; event.target.value = nearest(+event.target.value); fill(event.target); }
    follow();
  });
  // Arrows go from one counted threshold to the next, whatever the distance.
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "threshold-range") return;
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 3, PageDown: -3 }[event.key];
    const all = choices();
    let next = event.key === "Home" ? all[0] : event.key === "End" ? all[all.length - 1] : null;
    if (step) {
      const now = +event.target.value, beyond = step > 0 ? all.filter((c) => c > now + 1e-9) : all.filter((c) => c < now - 1e-9).reverse();
      next = beyond[Math.min(Math.abs(step), beyond.length) - 1];
    }
    if (next === null || next === undefined) { if (step) event.preventDefault(); return; }
    event.preventDefault();
    event.target.value = next;
    event.target.dispatchEvent(new Event("input", { bubbles: true }));
  });
  const prepare = () => {
    if (form()) { const range = document.getElementById("threshold-range"); fill(range); }
    key();
  };

  // ---- Links and requests carry what the address says by now.
  document.body.addEventListener("htmx:configRequest", (event) => {
    const { elt } = event.detail, keep = elt.dataset && elt.dataset.keep;
    if (!elt.closest("#chart, #threshold header, #season")) return;
    const path = new URL(event.detail.path, location.href), now = new URLSearchParams(location.search);
    const names = elt.closest("#chart") ? [...DRAFT, "day"] : ["window", "start", "end", ...DRAFT, "day"];
    const own = new URLSearchParams(keep || "");
    for (const name of names) if (!own.has(name)) { path.searchParams.delete(name); if (now.has(name)) path.searchParams.set(name, now.get(name)); }
    event.detail.path = path.pathname + path.search;
    if (keep) {
      const address = new URL(location.href);
      for (const [name, given] of own) address.searchParams.set(name, given);
      history.replaceState(history.state, "", address);
    }
  });

  // ---- Zoom: the range goes into the address, so that back leads out of it.
  const go = (address) => {
    const path = address.pathname + address.search;
    // As htmx marks what it pushes: back then asks for the page that the address names.
    history.replaceState({ htmx: true }, "", location.href);
    history.pushState({ htmx: true }, "", path);
    htmx.ajax("GET", path, { target: "#chart", swap: "outerHTML" });
  };
  const iso = (t) => new Date(t * 1000).toISOString().replace(/\.\d+Z$/, "Z");
  document.addEventListener("vigil:zoom", (event) => {
    const address = new URL(location.href);
    address.searchParams.delete("window");
    address.searchParams.set("start", iso(Math.floor(event.detail.from))); address.searchParams.set("end", iso(Math.ceil(event.detail.to)));
    go(address);
  });
  document.addEventListener("dblclick", (event) => {
    const address = new URL(location.href);
    if (!event.target.closest("#chart .u-over") || !address.searchParams.has("start")) return;
    address.searchParams.delete("start"); address.searchParams.delete("end");
    go(address);
  });

  // ---- A row of the list rings its mark.
  const ring = (event) => {
    const row = event.target.closest && event.target.closest("tr[data-mark]"), shown = chart();
    if (!shown) return;
    const id = row ? row.dataset.mark : null;
    if ((shown.vigil.hovered || null) !== id) { shown.vigil.hovered = id; Vigil.charts.repaint(chartBox()); }
  };
  document.addEventListener("mouseover", ring);
  document.addEventListener("focusin", ring);

  // ---- The confirmation opens over the page.
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-dialog]"), closer = event.target.closest("#dialog [data-close]"), dialog = document.getElementById("dialog");
    if (!dialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (opener) {
      event.preventDefault();
      htmx.ajax("GET", opener.getAttribute("href"), { target: "#dialog", swap: "innerHTML" }).then(() => { if (!dialog.open && dialog.firstElementChild) dialog.showModal(); });
    }
    if (closer) { event.preventDefault(); dialog.close(); }
  });

  // ---- Live: what came since is asked for every few seconds, while somebody looks.
  const EVERY_MS = 4000;
  let asking = false;
  const paused = () => { const button = document.getElementById("go-paused"); return button && button.getAttribute("aria-pressed") === "true"; };
  const append = (data, points) => {
    for (const [t, ...columns] of points) {
      const last = data.t.length - 1, names = ["low", "high", "mid", "min", "max", "mean"];
      const at = data.t.findIndex((known, i) => i > last - 8 && Math.abs(known - t) < data.step_s / 2);
      if (at >= 0) names.forEach((name, k) => { data[name][at] = columns[k]; });
      else if (last < 0 || t > data.t[last]) { data.t.push(t); names.forEach((name, k) => data[name].push(columns[k])); }
    }
  };
  const ask = async () => {
    const card = document.getElementById("chart"), shown = chart();
    if (!card || !card.dataset.tail || document.hidden || paused() || asking) return;
    asking = true;
    try {
      const data = shown && shown.vigil, step = data ? data.step_s : 60;
      const since = data && data.t.length ? data.t[data.t.length - 1] - 2 * step : Date.now() / 1000 - 600;
      const answer = await fetch(`${card.dataset.tail}?since=${since}&step=${step}`, { headers: { Accept: "application/json" } });
      if (!answer.ok || card !== document.getElementById("chart")) return;
      const fresh = await answer.json();
      if (data) {
        append(data, fresh.points);
        const known = new Set(data.marks.map((m) => m.id));
        for (const mark of fresh.marks) if (!known.has(mark.id)) data.marks.push(mark);
        const length = data.to - data.from;
        data.to = Math.max(data.to, fresh.now); data.from = data.to - length; data.now = fresh.now;
        Vigil.charts.refresh(chartBox());
      }
      said(fresh);
    } catch { /* the next round asks again */ } finally { asking = false; }
  };
  const said = (fresh) => {
    const figure = document.getElementById("last-value"), pulse = document.getElementById("pulse");
    if (figure) figure.textContent = Vigil.number(fresh.last_value);
    if (!pulse || fresh.last_at === null) return;
    const tag = document.createElement("span"), time = document.createElement("time");
    if (fresh.silent_s !== null) { tag.className = "tag warn"; tag.textContent = `silent for ${Vigil.duration(fresh.silent_s)}`; }
    else {
      const dot = document.createElement("i");
      tag.className = "tag ok"; dot.className = "dot ok";
      time.dateTime = new Date(fresh.last_at * 1000).toISOString(); time.title = Vigil.absolute ? Vigil.absolute(fresh.last_at * 1000) : time.dateTime; time.textContent = Vigil.ago(fresh.last_at * 1000);
      tag.append(dot, "receiving, ", time);
    }
    pulse.replaceChildren(tag);
  };
  setInterval(ask, EVERY_MS);

  document.body.addEventListener("htmx:afterSettle", prepare);
  prepare();
})();
