// Live updates: one socket, at most two paints a second, and what was missed is fetched by cursor.
"use strict";
(() => {
  const shell = document.getElementById("shell"), liveButton = document.getElementById("go-live"), pauseButton = document.getElementById("go-paused");
  if (!liveButton) return;
  const dot = document.getElementById("live-dot"), freshness = () => document.getElementById("freshness");
  const feed = () => document.getElementById("feed"), table = () => document.getElementById("table");
  const paused = { since: null }, waiting = new Map(), instances = new Map(), known = new Set();
  let socket = null, tries = 0, lostAt = 0, lostTimer = 0, lastUpdate = 0, lastSlow = Date.now(), announcedAt = 0, painted = true, missing = false, cursor = null, hold = 0;

  const readPage = () => {
    known.clear();
    for (const row of document.querySelectorAll("#feed [data-id]")) known.add(row.dataset.id);
    for (const id of waiting.keys()) known.add(id);
    if (feed()) for (const id of feed().dataset.known.split(",")) known.add(id);
    const source = feed() || table();
    if (source) cursor = source.dataset.cursor;
  };
  readPage();
  document.body.addEventListener("htmx:afterSettle", (event) => { if (event.detail.elt.id === "overview" || event.detail.elt.id === "table") { waiting.clear(); readPage(); showCount(); } });

  // ---- Taking in
  const wanted = (a) => {
    const list = feed();
    if (!list) return true;
    const { stream, severity } = list.dataset;
    return (!stream || a.stream === stream) && (!severity || Vigil.severities[a.severity] >= +severity);
  };
  const takeIn = (anomalies) => {
    let added = 0;
    for (const a of anomalies) {
      if (a.change === "closed" || !wanted(a)) continue;
      if (!known.has(a.id)) { known.add(a.id); added += 1; waiting.set(a.id, a); }
      else if (waiting.has(a.id)) waiting.set(a.id, a);
      else if (a.change === "update") change(a);
    }
    if (added) painted = false;
    return added;
  };
  const change = (a) => {
    const row = document.querySelector(`#feed [data-id="${CSS.escape(a.id)}"]`);
    if (row && !paused.since) row.replaceWith(rowOf(a, false));
  };
  const message = (text) => {
    const update = JSON.parse(text);
    if (update.type === "resync") { missing = true; catchUp(); return; }
    if (update.type !== "update") return;
    lastUpdate = Date.now();
    if (update.dropped) missing = true;
    if (update.events_per_s !== undefined) instances.set(update.instance || "", { ...update, seen: Date.now() });
    takeIn(update.anomalies || []);
    painted = false;
    if (missing) catchUp();
  };

  // ---- Painting
  const rowOf = (a, fresh) => {
    const row = document.createElement("li"), link = document.createElement("a");
    row.dataset.id = a.id;
    if (fresh) { row.className = "new"; setTimeout(() => row.classList.remove("new"), 3000); }
    link.href = `/anomalies/${a.id}/`;
    const severity = Vigil.severities[a.severity];
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg"), use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    mark.setAttribute("class", `mark sev-${severity}`); mark.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `${shell.dataset.icons}#sev-${severity}`); mark.append(use);
    const part = (tag, css, ...inside) => { const e = document.createElement(tag); if (css) e.className = css; e.append(...inside); return e; };
    const kind = a.anomaly_type.replaceAll("_", " ");
    let detail = `${kind === "flatline" ? "Flat line" : kind.charAt(0).toUpperCase() + kind.slice(1)}.`;
    if (a.value !== null) detail += ` ${Vigil.number(a.value)}`;
    if (a.value !== null && a.expected && a.expected.low !== null) detail += `, expected ${Vigil.number(a.expected.low)} to ${Vigil.number(a.expected.high)}`;
    const time = part("time", "", Vigil.ago(Date.parse(a.timestamp)));
    time.dateTime = a.timestamp; time.title = Vigil.absolute(Date.parse(a.timestamp));
    const score = a.peak_score ?? a.anomaly_score;
    link.append(mark,
      part("span", "text", part("span", "what", part("b", "", a.source), " ", part("span", "second", a.metric)), part("span", "detail", detail)),
      part("span", "right", part("b", "", part("span", "sr", `${a.severity} `), Vigil.score(score)), time));
    row.append(link);
    return row;
  };
  const setText = (id, text) => { const e = document.getElementById(id); if (e && e.textContent !== text) e.textContent = text; };
  const figures = () => {
    const now = Date.now();
    for (const [name, update] of instances) if (now - update.seen > 15000) instances.delete(name);
    if (!instances.size) return;
    const all = [...instances.values()], sum = (key) => all.reduce((n, u) => n + (u[key] || 0), 0);
    const rate = sum("events_per_s"), lag = sum("lag"), delays = all.map((u) => u.latency_p95_ms).filter((v) => v !== null && v !== undefined);
    setText("n-rate", Vigil.compact(rate)); setText("n-lag", Vigil.compact(lag));
    if (delays.length) setText("n-latency", Vigil.compact(Math.max(...delays)));
    if (!lag) setText("n-behind", "caught up");
    else if (rate > 0) setText("n-behind", `${lag / rate < 1 ? (lag / rate).toFixed(2) + " s" : Vigil.duration(lag / rate)} behind`);
  };
  const showCount = () => {
    const show = document.getElementById(feed() ? "feed-show" : "list-show");
    if (!show) return;
    show.hidden = !waiting.size;
    show.textContent = `${waiting.size} new, show`;
  };
  const paint = () => {
    if (document.hidden) return;
    const list = feed();
    if (freshness()) {
      const age = lastUpdate ? (Date.now() - lastUpdate) / 1000 : null;
      setText("freshness", paused.since ? `Paused at ${paused.since}. Nothing is lost: new anomalies wait.` : age === null ? "Waiting for the first update" : age < 3 ? "Updated just now" : `Updated ${Vigil.duration(age)} ago`);
    }
    if (painted) return;
    if (paused.since) { showCount(); return; }
    painted = true;
    figures();
    if (!waiting.size) return;
    if (!list) { showCount(); return; }
    // Rows go on top only while nobody reads the list: unfocused and not under the pointer.
    if (list.contains(document.activeElement) || Date.now() < hold) { showCount(); painted = false; return; }
    const empty = document.getElementById("feed-empty");
    if (empty) empty.hidden = true;
    const rows = [...waiting.values()].slice(-list.dataset.size);
    const count = waiting.size;
    waiting.clear();
    for (const a of rows) list.prepend(rowOf(a, true));
    while (list.children.length > list.dataset.size) list.lastElementChild.remove();
    const tag = document.getElementById("feed-new");
    if (tag) { tag.textContent = `${count} new`; tag.hidden = false; clearTimeout(tag.timer); tag.timer = setTimeout(() => { tag.hidden = true; }, 3000); }
    showCount();
    const critical = rows.find((a) => a.severity === "critical");
    if (critical && Date.now() - announcedAt > 10000) { announcedAt = Date.now(); setText("announce", `Critical: ${critical.metric} on ${critical.source}`); }
  };
  setInterval(() => {
    paint();
    if (!document.hidden && !paused.since && Date.now() - lastSlow > 10000) { lastSlow = Date.now(); htmx.trigger(document.body, "vigil:slow"); }
  }, 500);

  // ---- Catching up: the cursor is where the page was rendered, so nothing after it is missed.
  let catching = false;
  const catchUp = async (tell) => {
    if (!cursor || catching || !feed()) return 0;
    catching = true; missing = false;
    try {
      const { stream, severity, label } = feed().dataset;
      const query = new URLSearchParams({ cursor, stream, severity, label });
      const answer = await fetch(`/anomalies/since?${query}`, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(answer.status);
      const missed = await answer.json();
      const added = takeIn(missed.anomalies);
      cursor = missed.cursor;
      if (missed.truncated) htmx.trigger(document.body, "vigil:slow");
      if (tell) say("ok", "Back.", added ? `${added} anomal${added === 1 ? "y" : "ies"} from the gap ${added === 1 ? "was" : "were"} added.` : "Nothing was missed.", 6000);
      return added;
    } catch { missing = true; return 0; } finally { catching = false; }
  };

  // ---- Live and paused
  const setPaused = (on) => {
    paused.since = on ? Vigil.clock(Date.now()).time : null;
    liveButton.setAttribute("aria-pressed", String(!on)); pauseButton.setAttribute("aria-pressed", String(on));
    if (!on) { painted = false; catchUp().then(paint); htmx.trigger(document.body, "vigil:slow"); }
    paint();
  };
  // A phone has room for one of the two: there it is a toggle.
  const alone = (other) => getComputedStyle(other).display === "none";
  liveButton.addEventListener("click", () => setPaused(!paused.since && alone(pauseButton)));
  pauseButton.addEventListener("click", () => { if (!paused.since) setPaused(true); else if (alone(liveButton)) setPaused(false); });
  document.addEventListener("click", (event) => {
    if (event.target.closest("#feed-show")) { hold = 0; document.activeElement.blur(); if (paused.since) setPaused(false); painted = false; paint(); }
    if (event.target.closest("#list-show")) location.reload();
  });
  document.addEventListener("pointerover", (event) => { hold = event.target.closest && event.target.closest("#feed") ? Date.now() + 4000 : hold; });
  document.addEventListener("pointerout", (event) => { if (event.target.closest && event.target.closest("#feed") && !(event.relatedTarget && event.relatedTarget.closest && event.relatedTarget.closest("#feed"))) hold = 0; });

  // ---- The connection
  const say = (kind, bold, text, forMs) => {
    let line = document.getElementById("connection");
    const row = document.querySelector(".filters");
    if (!row) return;
    if (!line) { line = document.createElement("p"); line.id = "connection"; line.setAttribute("role", "status"); row.append(line); }
    line.className = `note ${kind} connection`;
    const b = document.createElement("b"); b.textContent = bold;
    line.replaceChildren(b, ` ${text}`);
    if (forMs) setTimeout(() => { if (line.firstChild && line.firstChild.textContent === bold) line.remove(); }, forMs);
  };
  const lost = () => {
    if (!lostAt) { lostAt = Date.now(); lostTimer = setTimeout(() => say("bad", "Disconnected.", "Trying again by itself. Nothing is lost."), 3000); }
    dot.className = "dot";
    const wait = Math.min(30, 2 ** tries) * (0.75 + Math.random() / 2);
    tries += 1;
    setTimeout(connect, wait * 1000);
  };
  const connect = () => {
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    socket.onopen = () => {
      clearTimeout(lostTimer); dot.className = "dot ok"; tries = 0; lastUpdate ||= Date.now();
      const long = lostAt && Date.now() - lostAt > 3000; lostAt = 0;
      // Also the first time: something may have been stored between rendering and connecting.
      catchUp(long);
      document.documentElement.dataset.connected = "yes";
    };
    socket.onmessage = (event) => message(event.data);
    socket.onclose = () => { delete document.documentElement.dataset.connected; lost(); };
  };
  if (shell.dataset.live === "socket") connect();
  else { dot.className = "dot ok"; setInterval(() => { if (!document.hidden) catchUp().then(() => { lastUpdate = Date.now(); }); }, 5000); }
  addEventListener("pagehide", () => { if (socket) { socket.onclose = null; socket.close(); } });
})();
