// Live updates: one socket, at most two paints a second, and what was missed is fetched by a resume
// token: the place in each partition where the page stands.
"use strict";
(() => {
  const shell = document.getElementById("shell"), liveButton = document.getElementById("go-live"), pauseButton = document.getElementById("go-paused");
  if (!liveButton) return;
  const dot = document.getElementById("live-dot"), freshness = () => document.getElementById("freshness");
  const feed = () => document.getElementById("feed");
  const MOST_WAITING = 500, MOST_KNOWN = 5000, SLOW_MS = 10000, TELL_AFTER_MS = 3000, MISSED_UPDATES = 3, POLL_MS = 5000;
  const paused = { since: null }, waiting = new Map(), instances = new Map(), known = new Set();
  let lastUpdate = 0, usual = 1000, lastSlow = Date.now(), announcedAt = 0, painted = true, missing = false, hold = 0, fell = 0;

  const knows = (id) => { known.add(id); if (known.size > MOST_KNOWN) known.delete(known.values().next().value); };
  const readPage = () => {
    for (const row of document.querySelectorAll("#feed [data-id]")) knows(row.dataset.id);
    if (feed()) { token = feed().dataset.token; place = null; }
  };

  // ---- The place: it moves on only past what this page was surely told of. With each strip comes
  // the server's place; it counts one strip later, if the socket stood all the while and spoke.
  let token = null, place = null, openSince = 0;
  const moveOn = () => {
    const now = document.getElementById("place");
    if (!now || (place && place.text === now.value)) return;
    if (place && openSince && openSince <= place.at && lastUpdate > place.at && !missing && !paused.since) token = place.text;
    place = { text: now.value, at: Date.now() };
  };
  readPage();
  document.body.addEventListener("htmx:afterSettle", (event) => {
    const id = event.detail.elt.id;
    if (id === "overview") { waiting.clear(); fell = 0; readPage(); showCount(); }
    if (id === "strip" || id === "place") { moveOn(); painted = false; }
    const kafka = document.querySelector('#components [data-part="Kafka"]');
    if (kafka && kafka.dataset.state === "down") say("warn", "Kafka is away.", "Pages work; scoring goes on from the same offset.");
    else unsay("warn");
  });

  // ---- Taking in
  const wanted = (a) => {
    const list = feed();
    if (!list) return true;
    const { stream, severity, label } = list.dataset;
    // What is new has no label yet.
    return (!stream || a.stream === stream) && (!severity || Vigil.severities[a.severity] >= +severity) && (!label || label === "none" || label === "not_false_alarm");
  };
  const takeIn = (anomalies) => {
    let added = 0;
    for (const a of anomalies) {
      if (a.change === "closed" || !wanted(a)) continue;
      if (!known.has(a.id)) { knows(a.id); added += 1; waiting.set(a.id, a); }
      else if (waiting.has(a.id)) waiting.set(a.id, a);
      else if (a.change === "update") change(a);
    }
    while (waiting.size > MOST_WAITING) { waiting.delete(waiting.keys().next().value); fell += 1; }
    if (added) painted = false;
    return added;
  };
  const changed = new Map();
  const change = (a) => { changed.set(a.id, a); while (changed.size > MOST_WAITING) changed.delete(changed.keys().next().value); };
  const heard = () => {
    const now = Date.now(), gap = now - lastUpdate;
    if (lastUpdate && gap < 10 * usual) usual = Math.max(500, 0.9 * usual + 0.1 * gap);
    lastUpdate = now;
  };
  // Pages of incidents listen; null: any of them.
  const incidents = (numbers) => document.dispatchEvent(new CustomEvent("vigil:incidents", { detail: numbers }));
  const message = (text) => {
    const update = JSON.parse(text);
    if (update.type === "resync") { missing = true; catchUp(); incidents(null); return; }
    if (update.type === "incidents") { incidents(update.numbers); return; }
    if (update.type !== "update") return;
    heard();
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
    if (a.silence) {
      const over = a.state === "closed", until = over ? Date.parse(a.end_timestamp) : Date.now();
      detail += ` Silent for ${Vigil.ago(Date.now() - until + Date.parse(a.silence.since))}${over ? ", now back" : ""}`;
    }
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
    const n = waiting.size + fell;
    show.hidden = !n;
    show.textContent = `${n.toLocaleString("en-US")} new, show`;
  };
  const spell = (ms) => Vigil.duration(Math.max(1, ms / 1000));
  // Three updates that did not come: what is shown stays, dimmed, and says how old it is.
  const stale = () => {
    const age = Date.now() - (lastUpdate || opened), old = !paused.since && age > Math.max(MISSED_UPDATES * usual, 3000);
    document.body.toggleAttribute("data-stale", old);
    const tag = document.getElementById("feed-age"), line = document.getElementById("feed-stale");
    if (tag) { tag.hidden = !old; if (old) tag.textContent = `${spell(age)} old`; }
    if (line) { line.hidden = !old; if (old) line.lastElementChild.textContent = `No update for ${spell(age)}, usually every ${spell(usual)}`; }
    return old ? age : 0;
  };
  const opened = Date.now();
  const paint = () => {
    if (document.hidden) return;
    const list = feed(), old = stale();
    if (freshness()) {
      const age = lastUpdate ? Date.now() - lastUpdate : null;
      setText("freshness", paused.since ? `Paused at ${paused.since}. Nothing is lost: new anomalies wait.` : old ? `No update for ${spell(old)}` : age === null ? "Waiting for the first update" : `Updated ${spell(age)} ago`);
    }
    if (painted) return;
    if (paused.since) { showCount(); return; }
    painted = true;
    figures();
    for (const a of changed.values()) {
      const row = document.querySelector(`#feed [data-id="${CSS.escape(a.id)}"]`);
      if (row) row.replaceWith(rowOf(a, false));
    }
    changed.clear();
    if (!waiting.size) return;
    if (!list) { showCount(); return; }
    // Rows go on top only while nobody reads the list: unfocused and not under the pointer.
    if (list.contains(document.activeElement) || Date.now() < hold) { showCount(); painted = false; return; }
    const empty = document.getElementById("feed-empty");
    if (empty) empty.hidden = true;
    const rows = [...waiting.values()].slice(-list.dataset.size);
    const count = waiting.size + fell;
    waiting.clear(); fell = 0;
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
    if (!document.hidden && !paused.since && Date.now() - lastSlow > SLOW_MS) { lastSlow = Date.now(); htmx.trigger(document.body, "vigil:slow"); }
  }, 500);
  document.addEventListener("visibilitychange", () => { painted = false; paint(); });

  // ---- Catching up: whatever was stored after the place where the page stands
  let catching = null, again = false;
  const fetchMissed = async () => {
    const { stream, severity, label } = feed().dataset;
    const query = new URLSearchParams({ token, stream, severity, label });
    const answer = await fetch(`/anomalies/since?${query}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(answer.status);
    const missed = await answer.json();
    const added = takeIn(missed.anomalies);
    token = missed.token; place = null;
    return { added, left: missed.count - missed.anomalies.length };
  };
  const catchUp = (tell) => {
    if (!token || !feed()) return Promise.resolve();
    if (catching) { again = true; return catching; }
    missing = false;
    catching = fetchMissed().then(({ added, left }) => {
      const n = (added + left).toLocaleString("en-US");
      if (tell) say("ok", "Back.", left ? `${n} anomalies came meanwhile; the newest are shown.` : added ? `${n} anomal${added === 1 ? "y" : "ies"} from the gap ${added === 1 ? "was" : "were"} added.` : "Nothing was missed.", 6000);
    }, () => { missing = true; }).finally(() => { catching = null; if (again) { again = false; catchUp(); } });
    return catching;
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
  const say = (kind, bold, text, forMs, button) => {
    let line = document.getElementById("connection");
    const row = document.querySelector(".filters");
    if (!row || (line && line.dataset.kind === "bad" && kind === "warn")) return;
    if (!line) { line = document.createElement("p"); line.id = "connection"; line.setAttribute("role", "status"); row.append(line); }
    const whole = `${bold} ${text}`;
    if (line.dataset.said === whole) return;
    line.className = `note ${kind} connection`; line.dataset.kind = kind; line.dataset.said = whole;
    const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg"), use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    icon.setAttribute("class", `icon ${{ bad: "bad-ink", ok: "ok-ink", warn: "warn-ink" }[kind]}`); icon.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `${shell.dataset.icons}#${kind}`); icon.append(use);
    const b = document.createElement("b"), said = document.createElement("span"); b.textContent = bold; said.append(b, ` ${text}`);
    line.replaceChildren(icon, said);
    if (button) line.append(button);
    if (forMs) setTimeout(() => { if (line.dataset.said === whole) line.remove(); }, forMs);
  };
  const unsay = (kind) => { const line = document.getElementById("connection"); if (line && line.dataset.kind === kind) line.remove(); };
  let socket = null, tries = 0, lostAt = 0, retryAt = 0, retry = 0;
  const now = document.createElement("button");
  now.type = "button"; now.className = "button small"; now.textContent = "Now";
  now.addEventListener("click", () => { clearTimeout(retry); connect(); });
  const tellLost = () => {
    if (!lostAt || Date.now() - lostAt < TELL_AFTER_MS) return;
    const wait = Math.max(0, retryAt - Date.now());
    say("bad", `Disconnected for ${spell(Date.now() - lostAt)}.`, wait ? `Trying again in ${spell(wait)}. Nothing is lost.` : "Trying again now. Nothing is lost.", 0, now);
  };
  setInterval(tellLost, 1000);
  const lost = () => {
    lostAt ||= Date.now(); openSince = 0;
    dot.className = "dot";
    delete document.documentElement.dataset.connected;
    const wait = Math.min(30, 2 ** tries) * (0.75 + Math.random() / 2) * 1000;
    tries += 1; retryAt = Date.now() + wait;
    clearTimeout(retry);
    retry = setTimeout(connect, wait);
  };
  const connect = () => {
    retryAt = 0;
    const mine = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    if (socket) { socket.onclose = null; socket.close(); }
    socket = mine;
    socket.onopen = () => {
      dot.className = "dot ok"; tries = 0; openSince = Date.now();
      const long = lostAt && Date.now() - lostAt > TELL_AFTER_MS; lostAt = 0;
      unsay("bad");
      incidents(null);
      // Also the first time: something may have been stored between rendering and connecting.
      catchUp(long).then(() => { document.documentElement.dataset.connected = "yes"; });
    };
    socket.onmessage = (event) => message(event.data);
    socket.onclose = lost;
  };
  if (shell.dataset.live === "socket") connect();
  else { usual = POLL_MS; dot.className = "dot ok"; setInterval(() => { if (document.hidden || paused.since) return; incidents(null); catchUp().then(() => { if (!missing) heard(); }); }, POLL_MS); }
  addEventListener("pagehide", () => { clearTimeout(retry); if (socket) { socket.onclose = null; socket.close(); } });
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
})();
