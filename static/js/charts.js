// Charts with uPlot: a value with its expected band and marks, and the pipeline's throughput.
"use strict";
(() => {
  const probe = document.createElement("i");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const family = () => getComputedStyle(document.body).fontFamily;
  const SEVERITIES = ["", "low", "medium", "high", "critical"];
  const charts = new Map();
  const pad = (n) => String(n).padStart(2, "0");
  const moment = (t) => { const p = Vigil.clock(t * 1000); return `${p.day} ${p.month} ${p.time} ${p.zone}`; };
  const ticks = (u, splits, axis, space, step) => splits.map((t) => {
    const p = Vigil.clock(t * 1000), minute = p.time.slice(0, 5);
    return step >= 86400 || (step >= 21600 && minute === "00:00") ? `${p.weekday} ${p.day} ${p.month}` : minute;
  });

  const axes = (size = 46) => {
    const font = `11px ${family()}`, stroke = colour("text-3"), grid = { stroke: colour("grid"), width: 1 };
    return [
      { font, stroke, grid: { show: false }, ticks: { show: false }, values: ticks, space: 90, size: 26, gap: 4 },
      { font, stroke, grid, ticks: { show: false }, size, gap: 6, space: 36, values: (u, at) => at.map((v) => (v === null ? "" : Math.abs(v) < 1e4 ? Vigil.number(+v.toPrecision(6)) : Vigil.compact(v))) },
    ];
  };
  const shape = (ctx, severity, x, y, r) => {
    ctx.beginPath();
    if (severity === 1) ctx.arc(x, y, r * 0.8, 0, 2 * Math.PI);
    else if (severity === 2) { ctx.moveTo(x, y - r * 1.1); ctx.lineTo(x + r * 1.1, y); ctx.lineTo(x, y + r * 1.1); ctx.lineTo(x - r * 1.1, y); ctx.closePath(); }
    else if (severity === 3) { ctx.moveTo(x, y - r); ctx.lineTo(x + r * 1.1, y + r * 0.85); ctx.lineTo(x - r * 1.1, y + r * 0.85); ctx.closePath(); }
    else { const a = r * 0.45; ctx.moveTo(x - a, y - r); for (const [dx, dy] of [[a, -r], [r, -a], [r, a], [a, r], [-a, r], [-r, a], [-r, -a]]) ctx.lineTo(x + dx, y + dy); ctx.closePath(); }
  };
  const drawMark = (u, mark, chosen) => {
    const ctx = u.ctx, ratio = devicePixelRatio, x = u.valToPos(mark.t, "x", true), y = u.valToPos(mark.v, "y", true);
    if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) return;
    const r = (chosen ? 7.5 : 5) * ratio, fill = colour(SEVERITIES[mark.severity]), surface = colour("surface");
    ctx.save();
    ctx.lineJoin = "round";
    if (chosen) { ctx.beginPath(); ctx.arc(x, y, r * 1.65, 0, 2 * Math.PI); ctx.strokeStyle = fill; ctx.lineWidth = 1.5 * ratio; ctx.stroke(); }
    shape(ctx, mark.severity, x, y, r);
    ctx.strokeStyle = surface; ctx.lineWidth = 3 * ratio; ctx.stroke();
    ctx.fillStyle = fill; ctx.fill();
    if (mark.severity === 4) { ctx.fillStyle = surface; const w = Math.max(1, r * 0.24); ctx.fillRect(x - w / 2, y - r * 0.6, w, r * 0.7); ctx.fillRect(x - w / 2, y + r * 0.3, w, w); }
    ctx.restore();
  };
  const shade = (u, selected) => {
    if (!selected) return;
    const ctx = u.ctx, from = u.valToPos(selected.from, "x", true), to = u.valToPos(Math.max(selected.to, selected.from), "x", true);
    const left = Math.max(from, u.bbox.left), right = Math.min(Math.max(to, from + 2), u.bbox.left + u.bbox.width);
    ctx.save(); ctx.fillStyle = colour("critical-soft"); ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height); ctx.restore();
  };
  const tip = (box, describe) => {
    const pop = document.createElement("div");
    pop.className = "pop"; pop.hidden = true; box.append(pop);
    return (u) => {
      const i = u.cursor.idx;
      const lines = i === null || i === undefined || u.cursor.left < 0 ? null : describe(i, u);
      pop.hidden = !lines;
      if (!lines) return;
      pop.replaceChildren(...lines.map((text, k) => { const line = document.createElement(k === 1 ? "b" : "div"); line.textContent = text; if (k === 1) line.className = "row"; return line; }));
      const x = u.cursor.left + u.over.offsetLeft, wide = 264;
      pop.style.left = `${x + wide + 24 > box.clientWidth ? x - wide - 14 : x + 14}px`;
      pop.style.top = "8px";
    };
  };
  const cursor = { points: { show: false }, y: false, drag: { x: true, y: false } };

  const value = (box, data, height) => {
    const band = colour("band"), series = colour("series");
    const soft = series.replace(/^rgb\((.*)\)$/, "rgba($1, 0.3)");
    const marks = data.marks || [];
    const extent = (u, min, max) => {
      if (min === null || max === null) return [0, 1];
      for (const m of marks) { min = Math.min(min, m.v); max = Math.max(max, m.v); }
      const room = (max - min || Math.abs(max) || 1) * 0.08;
      return [min >= 0 && min - room < 0 ? 0 : min - room, max + room];
    };
    const show = tip(box, (i) => {
      const lines = [moment(data.t[i])];
      if (data.mean[i] === null) return null;
      lines.push(data.min[i] === data.max[i] ? Vigil.number(data.mean[i]) : `${Vigil.number(data.min[i])} to ${Vigil.number(data.max[i])}`);
      if (data.low[i] !== null) lines.push(`expected ${Vigil.number(data.low[i])} to ${Vigil.number(data.high[i])}`);
      const near = marks.find((m) => Math.abs(m.t - data.t[i]) <= data.step_s);
      if (near) lines.push(`${SEVERITIES[near.severity]} anomaly, score ${Vigil.score(near.score)}`);
      return lines;
    });
    return new uPlot({
      width: box.clientWidth, height, cursor, legend: { show: false }, padding: [14, 14, 0, 0],
      tzDate: (t) => uPlot.tzDate(new Date(t * 1000), Vigil.zone === "UTC" ? "Etc/UTC" : Vigil.zone),
      scales: { x: { time: true, range: () => [data.from, data.to] }, y: { range: extent } },
      axes: axes(),
      series: [{}, { stroke: "transparent", width: 0, points: { show: false } }, { stroke: "transparent", width: 0, points: { show: false } },
        { stroke: colour("accent"), width: 0.6, points: { show: false }, spanGaps: false },
        { stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } },
        { stroke: series, width: 1.4, spanGaps: false, points: { show: data.t.length < 3, size: 3 } }],
      bands: [{ series: [2, 1], fill: band }, { series: [5, 4], fill: soft }],
      hooks: {
        drawClear: [(u) => shade(u, data.selected)],
        draw: [(u) => { for (const m of marks) if (!data.selected || m.id !== data.selected.id) drawMark(u, m, false);
          for (const m of marks) if (data.selected && m.id === data.selected.id) drawMark(u, m, true); }],
        setCursor: [show],
      },
    }, [data.t, data.low, data.high, data.mid, data.min, data.max, data.mean], box);
  };
  const area = (box, data, height, column, unit, more) => new uPlot({
    width: box.clientWidth, height, cursor, legend: { show: false }, padding: [10, 14, 0, 0],
    tzDate: (t) => uPlot.tzDate(new Date(t * 1000), Vigil.zone === "UTC" ? "Etc/UTC" : Vigil.zone),
    scales: { y: { range: (u, min, max) => [0, Math.max(max || 0, 1) * 1.1] } }, axes: axes(),
    series: [{}, { stroke: colour("series"), width: 1.3, fill: colour("grid"), points: { show: false } },
      ...(more ? [{ stroke: colour("accent"), width: 1.2, dash: [5, 4], points: { show: false } }] : [])],
    hooks: { setCursor: [tip(box, (i) => [moment(data.t[i]), `${Vigil.compact(data[column][i])} ${unit}`, ...(more ? [`${Vigil.compact(data[more][i])} come in`] : [])])] },
  }, [data.t, data[column], ...(more ? [data[more]] : [])], box);
  const work = (box, data, height) => {
    const bars = uPlot.paths.bars({ size: [0.6, 8] });
    return new uPlot({
      width: box.clientWidth, height, cursor, legend: { show: false }, padding: [10, 6, 0, 0],
      tzDate: (t) => uPlot.tzDate(new Date(t * 1000), Vigil.zone === "UTC" ? "Etc/UTC" : Vigil.zone),
      scales: { y: { range: (u, min, max) => [0, Math.max(max || 0, 1) * 1.1] }, n: { range: (u, min, max) => [0, Math.max(max || 0, 4) * 2.2] } },
      axes: [...axes(), { scale: "n", side: 1, show: true, font: `11px ${family()}`, stroke: colour("text-3"), grid: { show: false }, ticks: { show: false }, size: 36, space: 44, values: (u, at) => at.map((v) => (Number.isInteger(v) ? v : "")) }],
      series: [{}, { scale: "n", stroke: colour("low"), fill: colour("low"), width: 0, paths: bars, points: { show: false } }, { stroke: colour("series"), width: 1.3, points: { show: false } }],
      hooks: { setCursor: [tip(box, (i) => [moment(data.t[i]), `${Vigil.compact(data.events[i])} events per s`, `${data.anomalies[i]} anomalies`])] },
    }, [data.t, data.anomalies, data.events], box);
  };
  const kinds = { value, work, events: (b, d, h) => area(b, d, h, "events", "events per s", d.arrived && "arrived"), lag: (b, d, h) => area(b, d, h, "lag", "events behind") };

  const drawAll = () => {
    for (const [box, chart] of charts) if (!box.isConnected) { chart.destroy(); charts.delete(box); }
    for (const box of document.querySelectorAll("[data-chart]")) {
      if (charts.has(box)) continue;
      const data = JSON.parse(document.getElementById(box.dataset.source).textContent);
      if (!data || !data.t || !data.t.length) continue;
      charts.set(box, kinds[box.dataset.chart](box, data, box.clientHeight));
    }
  };
  const fillTable = (details) => {
    const data = JSON.parse(document.getElementById(details.dataset.table).textContent), target = details.querySelector(".table");
    if (!details.open || target.firstChild) return;
    const columns = ["min", "max", "low", "high", "events", "arrived", "anomalies", "lag"].filter((name) => Array.isArray(data[name]));
    const words = { min: "least", max: "greatest", low: "expected from", high: "expected to", events: "events per s", arrived: "come in per s", anomalies: "anomalies", lag: "lag" };
    const table = document.createElement("table"), head = table.createTHead().insertRow();
    for (const text of ["time", ...columns.map((c) => words[c])]) { const th = document.createElement("th"); th.scope = "col"; th.textContent = text; if (text !== "time") th.className = "num"; head.append(th); }
    const body = table.createTBody();
    data.t.forEach((t, i) => {
      if (columns.every((c) => data[c][i] === null)) return;
      const row = body.insertRow();
      row.insertCell().textContent = moment(t);
      for (const c of columns) { const cell = row.insertCell(); cell.className = "num"; cell.textContent = Vigil.number(data[c][i]); }
    });
    target.append(table);
  };
  document.addEventListener("toggle", (event) => { if (event.target.matches && event.target.matches("details[data-table]")) fillTable(event.target); }, true);
  document.body.addEventListener("htmx:afterSettle", drawAll);
  let wait = 0;
  addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(() => { for (const [box, chart] of charts) chart.setSize({ width: box.clientWidth, height: box.clientHeight }); }, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const [box, chart] of charts) { chart.destroy(); box.replaceChildren(); charts.delete(box); } drawAll(); });
  drawAll();
})();
