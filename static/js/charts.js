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
  const moment = (t) => { const p = Vigil.clock(t * 1000); return `${p.weekday} ${p.day} ${p.month} ${p.time} ${p.zone}`; };
  const zoned = (t) => uPlot.tzDate(new Date(t * 1000), Vigil.zone === "UTC" ? "Etc/UTC" : Vigil.zone);
  const ticks = (u, splits, axis, space, step) => splits.map((t) => {
    const p = Vigil.clock(t * 1000), minute = p.time.slice(0, 5);
    return step >= 86400 || minute === "00:00" ? `${p.weekday} ${p.day} ${p.month}` : minute;
  });

  // ---- Axes: at most five round ticks, whatever the height.
  const rounded = (low, high, most = 5) => {
    if (!(high > low)) return [low];
    const step = 10 ** Math.floor(Math.log10((high - low) / most));
    for (const factor of [1, 2, 2.5, 5, 10, 20, 25, 50]) {
      const size = step * factor, first = Math.ceil(low / size - 1e-9), last = Math.floor(high / size + 1e-9);
      if (last - first + 1 <= most) return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => +((first + i) * size).toPrecision(12));
    }
    return [low, high];
  };
  const said = (v) => (v === null ? "" : Math.abs(v) < 1e5 ? Vigil.number(+v.toPrecision(8)) : Math.abs(v) < 1e9 ? Vigil.compact(v) : Math.abs(v) < 1e16 ? `${Vigil.number(+(v / 1e12).toPrecision(5))} T` : v.toExponential(1).replace("-", "−"));
  // Neighbouring ticks must differ, however many digits they share.
  const labels = (at) => {
    const texts = at.map(said);
    if (new Set(texts).size === texts.length) return texts;
    // Very large ones differ by too little for short words: how far they are from the first tells.
    if (Math.abs(at[0]) >= 1e9) return at.map((v, i) => (i ? `+${Vigil.number(v - at[0])}` : said(v)));
    for (let digits = 5; digits < 16; digits += 1) {
      const longer = at.map((v) => v.toLocaleString("en-US", { maximumSignificantDigits: digits }).replace("-", "−"));
      if (new Set(longer).size === longer.length) return longer;
    }
    return texts;
  };
  const wide = (u, values) => {
    const longest = Math.max(0, ...(values || []).map((text) => String(text ?? "").length));
    return Math.min(120, Math.max(34, 14 + longest * 6.4));
  };
  const axes = (more = {}) => {
    const font = `11px ${family()}`, stroke = colour("text-3"), grid = { stroke: colour("grid"), width: 1 };
    return [
      { font, stroke, grid, ticks: { show: false }, values: ticks, space: 92, size: 24, gap: 5 },
      { font, stroke, grid, ticks: { show: false }, size: wide, gap: 8, splits: (u, i, low, high) => rounded(low, high), values: (u, at) => labels(at), ...more },
    ];
  };

  // ---- Marks: shape and colour by severity, a halo, the chosen one ringed.
  const shape = (ctx, severity, x, y, r) => {
    ctx.beginPath();
    if (severity === 1) ctx.arc(x, y, r * 0.8, 0, 2 * Math.PI);
    else if (severity === 2) { ctx.moveTo(x, y - r * 1.1); ctx.lineTo(x + r * 1.1, y); ctx.lineTo(x, y + r * 1.1); ctx.lineTo(x - r * 1.1, y); ctx.closePath(); }
    else if (severity === 3) { ctx.moveTo(x, y - r); ctx.lineTo(x + r * 1.1, y + r * 0.85); ctx.lineTo(x - r * 1.1, y + r * 0.85); ctx.closePath(); }
    else { const a = r * 0.45; ctx.moveTo(x - a, y - r); for (const [dx, dy] of [[a, -r], [r, -a], [r, a], [a, r], [-a, r], [-r, a], [-r, -a]]) ctx.lineTo(x + dx, y + dy); ctx.closePath(); }
  };
  const place = (u, mark) => ({ x: u.valToPos(mark.t, "x", true), y: u.valToPos(mark.v, "y", true) });
  const inside = (u, x) => x >= u.bbox.left - 1 && x <= u.bbox.left + u.bbox.width + 1;
  const drawMark = (u, mark, chosen, paint) => {
    const ctx = u.ctx, ratio = devicePixelRatio, { x, y } = place(u, mark);
    if (!inside(u, x)) return;
    const r = (chosen ? 7.5 : 5.5) * ratio, fill = paint[SEVERITIES[mark.severity]];
    ctx.save();
    ctx.lineJoin = "round";
    if (chosen) { ctx.beginPath(); ctx.arc(x, y, r * 1.65, 0, 2 * Math.PI); ctx.strokeStyle = fill; ctx.lineWidth = 1.5 * ratio; ctx.stroke(); }
    shape(ctx, mark.severity, x, y, r);
    ctx.strokeStyle = paint.surface; ctx.lineWidth = 6 * ratio; ctx.stroke();
    ctx.fillStyle = fill; ctx.fill();
    if (mark.severity === 4) { ctx.fillStyle = paint["on-mark"]; const w = Math.max(1, r * 0.26); ctx.fillRect(x - w / 2, y - r * 0.6, w, r * 0.7); ctx.fillRect(x - w / 2, y + r * 0.3, w, w); }
    ctx.restore();
  };
  const drawRing = (u, mark, stroke, paint, dashed) => {
    const ctx = u.ctx, ratio = devicePixelRatio, { x, y } = place(u, mark);
    if (!inside(u, x)) return;
    ctx.save();
    ctx.beginPath(); ctx.arc(x, y, 5 * ratio, 0, 2 * Math.PI);
    ctx.fillStyle = paint.surface; ctx.fill();
    ctx.strokeStyle = stroke; ctx.lineWidth = 1.4 * ratio; ctx.setLineDash(dashed ? [2.4 * ratio, 2.2 * ratio] : []); ctx.stroke();
    if (!dashed) { ctx.beginPath(); ctx.arc(x, y, 2 * ratio, 0, 2 * Math.PI); ctx.fillStyle = stroke; ctx.fill(); }
    ctx.restore();
  };
  const shade = (u, selected) => {
    if (!selected) return;
    const ctx = u.ctx, from = u.valToPos(selected.from, "x", true), to = u.valToPos(Math.max(selected.to, selected.from), "x", true);
    const left = Math.max(from, u.bbox.left), right = Math.min(Math.max(to, from + 2), u.bbox.left + u.bbox.width);
    if (right > left) { ctx.save(); ctx.fillStyle = colour("critical-soft"); ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height); ctx.restore(); }
  };
  const hatch = (u, silent, now) => {
    if (!silent || !silent.length) return;
    const ctx = u.ctx, ratio = devicePixelRatio, { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.beginPath(); ctx.rect(left, top, width, height); ctx.clip();
    ctx.strokeStyle = colour("line-strong"); ctx.globalAlpha = 0.55; ctx.lineWidth = ratio;
    for (const [from, to] of silent) {
      const x0 = Math.max(u.valToPos(from, "x", true), left), x1 = Math.min(Math.max(u.valToPos(to, "x", true), x0 + 3 * ratio), left + width);
      if (x1 <= left || x0 >= left + width) continue;
      ctx.save(); ctx.beginPath(); ctx.rect(x0, top, x1 - x0, height); ctx.clip(); ctx.beginPath();
      for (let x = x0 - height; x < x1; x += 6 * ratio) { ctx.moveTo(x, top + height); ctx.lineTo(x + height, top); }
      ctx.stroke(); ctx.restore();
    }
    ctx.globalAlpha = 1; ctx.fillStyle = colour("text-2"); ctx.font = `${11 * ratio}px ${family()}`; ctx.textAlign = "center"; ctx.textBaseline = "top";
    let free = -Infinity;
    for (const [from, to] of [...silent].sort((a, b) => a[0] - b[0])) {
      const x0 = Math.max(u.valToPos(from, "x", true), left), x1 = Math.min(u.valToPos(to, "x", true), left + width), text = `silent ${Vigil.duration(to - from)}`, room = ctx.measureText(text).width;
      const x = Math.min(Math.max((x0 + x1) / 2, left + room / 2), left + width - room / 2 - (now ? 36 * ratio : 0));
      if (x1 < left || x - room / 2 < free) continue;
      free = x + room / 2 + 8 * ratio;
      ctx.fillStyle = colour("surface"); ctx.fillRect(x - room / 2 - 3 * ratio, top, room + 6 * ratio, 15 * ratio);
      ctx.fillStyle = colour("text-2"); ctx.fillText(text, x, top + 2 * ratio);
    }
    ctx.restore();
  };
  const drawNow = (u, now) => {
    if (!now) return;
    const ctx = u.ctx, ratio = devicePixelRatio, x = Math.min(u.valToPos(now, "x", true), u.bbox.left + u.bbox.width);
    if (!inside(u, x)) return;
    ctx.save();
    ctx.strokeStyle = colour("text-2"); ctx.lineWidth = ratio; ctx.setLineDash([5 * ratio, 4 * ratio]);
    ctx.beginPath(); ctx.moveTo(x, u.bbox.top); ctx.lineTo(x, u.bbox.top + u.bbox.height); ctx.stroke();
    ctx.fillStyle = colour("text-2"); ctx.font = `${11 * ratio}px ${family()}`; ctx.textAlign = "right"; ctx.textBaseline = "top"; ctx.fillText("now", x - 5 * ratio, u.bbox.top + 2 * ratio);
    ctx.restore();
  };

  // ---- The note beside the cursor: right or left of its point, on a narrow chart above or below.
  const tip = (box, describe, height) => {
    const pop = document.createElement("div");
    pop.className = "pop tip"; pop.hidden = true; box.append(pop);
    return (u) => {
      const i = u.cursor.idx;
      const lines = i === null || i === undefined || u.cursor.left < 0 ? null : describe(i, u);
      pop.hidden = !lines;
      if (!lines) return;
      pop.replaceChildren(...lines.map((text, k) => { const line = document.createElement(k === 1 ? "b" : "div"); line.textContent = text; if (k === 1) line.className = "row"; return line; }));
      const x = u.cursor.left + u.over.offsetLeft, wide = pop.offsetWidth, room = 14;
      const y = height ? height(i, u) : u.over.clientHeight / 2;
      if (x + room + wide <= box.clientWidth) pop.style.left = `${x + room}px`;
      else if (x - room - wide >= 0) pop.style.left = `${x - room - wide}px`;
      else {
        pop.style.left = `${Math.max(0, Math.min(x - wide / 2, box.clientWidth - wide))}px`;
        pop.style.top = y > u.over.clientHeight / 2 ? `${y - pop.offsetHeight - room}px` : `${y + room}px`;
        return;
      }
      pop.style.top = "8px";
    };
  };
  const shared = { key: "vigil", scales: ["x", null] };
  const cursor = (zoom) => ({ points: { show: false }, y: false, drag: { x: Boolean(zoom), y: false, setScale: false }, sync: shared });
  const alone = (u, index) => {
    const data = u.data[index], found = [];
    for (let i = 0; i < data.length; i += 1) if (data[i] !== null && (data[i - 1] ?? null) === null && (data[i + 1] ?? null) === null) found.push(i);
    return found;
  };

  // ---- One value with its band
  const meant = (draft, one) => {
    if (draft.direction === "both" && !draft.least) return true;
    if (one.away === null || one.away === undefined) return draft.direction === "both" && !draft.least;
    const side = one.side || Math.sign(one.away);
    if ((draft.direction === "up" && side < 0) || (draft.direction === "down" && side > 0)) return false;
    return Math.abs(one.away) >= (draft.least || 0);
  };
  const flagged = (draft, mark) => !draft || (mark.score !== null && mark.score >= draft.threshold - 1e-9 && meant(draft, mark));
  const added = (draft, data) => {
    if (!draft || !data.near) return [];
    const bit = data.levels.findIndex((level) => Math.abs(level - draft.threshold) < 1e-9);
    if (bit < 0 || draft.threshold >= data.present - 1e-9 && draft.direction === "both" && !draft.least) return [];
    return data.near.filter((one) => (one.levels >> bit) & 1 && meant(draft, one));
  };
  const columns = (data) => [data.t, data.low, data.high, data.mid, data.min, data.max, data.mean];
  const value = (box, data, height) => {
    const band = colour("band"), series = colour("series");
    const soft = series.replace(/^rgb\((.*)\)$/, "rgba($1, 0.3)");
    const paint = Object.fromEntries([...SEVERITIES.slice(1), "surface", "on-mark", "accent", "text-2"].map((name) => [name, colour(name)]));
    const marks = data.marks || [];
    data.marks = marks;
    const extent = (u, min, max) => {
      if (min === null || max === null || min === undefined) return [0, 1];
      for (const m of marks) if (m.t >= data.from && m.t <= data.to) { min = Math.min(min, m.v); max = Math.max(max, m.v); }
      // What is never negative has no axis below 0, even where its band would reach there.
      if (min < 0 && data.min.every((v) => v === null || v >= 0) && marks.every((m) => m.v >= 0)) min = 0;
      const room = (max - min || Math.abs(max) || 1) * 0.08;
      return [min >= 0 && (min - room < 0 || min < 0.35 * max) ? 0 : min - room, max + room];
    };
    const show = tip(box, (i) => {
      if (data.mean[i] === null) return null;
      const lines = [moment(data.t[i])], unit = data.unit ? ` ${data.unit}` : "";
      lines.push((data.min[i] === data.max[i] ? Vigil.number(data.mean[i]) : `${Vigil.number(data.min[i])} to ${Vigil.number(data.max[i])}`) + unit);
      if (data.low[i] !== null) lines.push(`expected ${Vigil.number(data.low[i])} to ${Vigil.number(data.high[i])}`);
      for (const near of marks.filter((m) => Math.abs(m.t - data.t[i]) <= data.step_s).slice(0, 3)) lines.push(`${SEVERITIES[near.severity]} anomaly, score ${Vigil.score(near.score)}${near.label ? `, ${near.label.toLowerCase()}` : ""}`);
      return lines;
    }, (i, u) => u.valToPos(data.mean[i] ?? 0, "y"));
    const chosen = () => data.hovered || (data.selected && data.selected.id);
    const nearest = (u) => {
      let best = null, least = 15;
      for (const m of marks) {
        const d = Math.hypot(u.valToPos(m.t, "x") - u.cursor.left, u.valToPos(m.v, "y") - u.cursor.top);
        if (d < least) { least = d; best = m; }
      }
      return best;
    };
    const chart = new uPlot({
      width: box.clientWidth, height, cursor: cursor(box.dataset.zoom !== undefined), legend: { show: false }, padding: [14, 14, 0, 0],
      tzDate: zoned,
      scales: { x: { time: true, range: () => [data.from, data.to] }, y: { range: extent } },
      axes: axes(),
      series: [{}, { stroke: "transparent", width: 0, points: { show: false } }, { stroke: "transparent", width: 0, points: { show: false } },
        { stroke: colour("accent"), width: 1, alpha: 0.65, points: { show: false }, spanGaps: false },
        { stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } },
        { stroke: series, width: 1.4, spanGaps: false, points: { show: true, size: 4, stroke: series, fill: series, filter: alone } }],
      bands: [{ series: [2, 1], fill: band }, { series: [5, 4], fill: soft }],
      hooks: {
        drawClear: [(u) => { shade(u, data.selected); hatch(u, data.silent, data.now); }],
        draw: [(u) => {
          drawNow(u, data.now);
          for (const m of marks) if (!flagged(data.draft, m)) drawRing(u, m, paint["text-2"], paint, true);
          for (const one of added(data.draft, data)) drawRing(u, one, paint.accent, paint, false);
          for (const m of [...marks].sort((a, b) => a.severity - b.severity)) if (m.id !== chosen() && flagged(data.draft, m)) drawMark(u, m, false, paint);
          for (const m of marks) if (m.id === chosen()) drawMark(u, m, true, paint);
        }],
        setCursor: [show, (u) => { u.over.style.cursor = nearest(u) && !data.selected ? "pointer" : ""; }],
        setSelect: [(u) => {
          if (u.select.width < 6) return;
          const from = u.posToVal(u.select.left, "x"), to = u.posToVal(u.select.left + u.select.width, "x");
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          box.dispatchEvent(new CustomEvent("vigil:zoom", { bubbles: true, detail: { from, to } }));
        }],
      },
    }, columns(data), box);
    let pressed = null;
    chart.over.addEventListener("mousedown", (event) => { pressed = event.clientX; });
    chart.over.addEventListener("click", (event) => {
      const mark = nearest(chart);
      if (mark && Math.abs(event.clientX - pressed) < 4 && !(data.selected && data.selected.id === mark.id)) location.href = `/anomalies/${mark.id}/`;
    });
    chart.vigil = data;
    return chart;
  };
  const area = (box, data, height, column, unit, more) => new uPlot({
    width: box.clientWidth, height, cursor: cursor(), legend: { show: false }, padding: [10, 14, 0, 0],
    tzDate: zoned,
    scales: { y: { range: (u, min, max) => [0, Math.max(max || 0, 1) * 1.1] } }, axes: axes(),
    series: [{}, { stroke: colour("series"), width: 1.4, fill: colour("grid"), points: { show: false } },
      ...(more ? [{ stroke: colour("accent"), width: 1.2, dash: [5, 4], points: { show: false } }] : [])],
    hooks: { setCursor: [tip(box, (i) => [moment(data.t[i]), `${Vigil.compact(data[column][i])} ${unit}`, ...(more ? [`${Vigil.compact(data[more][i])} come in`] : [])])] },
  }, [data.t, data[column], ...(more ? [data[more]] : [])], box);
  const work = (box, data, height) => {
    const bars = uPlot.paths.bars({ size: [0.6, 8] });
    return new uPlot({
      width: box.clientWidth, height, cursor: cursor(), legend: { show: false }, padding: [10, 6, 0, 0],
      tzDate: zoned,
      scales: { y: { range: (u, min, max) => [0, Math.max(max || 0, 1) * 1.1] }, n: { range: (u, min, max) => [0, Math.max(max || 0, 4) * 2.2] } },
      axes: [...axes(), { scale: "n", side: 1, show: true, font: `11px ${family()}`, stroke: colour("text-3"), grid: { show: false }, ticks: { show: false }, size: 36, space: 44, values: (u, at) => at.map((v) => (Number.isInteger(v) ? v : "")) }],
      series: [{}, { scale: "n", stroke: colour("low"), fill: colour("low"), width: 0, paths: bars, points: { show: false } }, { stroke: colour("series"), width: 1.4, points: { show: false } }],
      hooks: { setCursor: [tip(box, (i) => [moment(data.t[i]), `${Vigil.compact(data.events[i])} events per s`, `${data.anomalies[i]} anomalies`])] },
    }, [data.t, data.anomalies, data.events], box);
  };
  // ---- Several lines, each with a colour and a dash of its own
  const STROKES = [["accent", 1.7, []], ["series", 1.4, [5, 3]], ["text-3", 1.6, [1.5, 3]]];
  const several = (lines) => lines.map((line, i) => { const [name, width, dash] = STROKES[i % STROKES.length]; return { stroke: colour(name), width, dash, spanGaps: false, points: { show: false } }; });
  const upright = (u, at, text, taken) => {
    const ctx = u.ctx, ratio = devicePixelRatio, x = u.valToPos(at, "x", true), { left, top, width, height } = u.bbox;
    if (!inside(u, x)) return;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("text-2"); ctx.lineWidth = ratio; ctx.setLineDash([4 * ratio, 4 * ratio]);
    ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
    ctx.font = `${11 * ratio}px ${family()}`; ctx.textBaseline = "top";
    const room = ctx.measureText(text).width + 12 * ratio, right = x + room <= left + width;
    ctx.textAlign = right ? "left" : "right";
    const from = right ? x : x - room;
    let row = 0;
    while (taken.some((t) => t.row === row && from < t.to && from + room > t.from)) row += 1;
    taken.push({ row, from, to: from + room });
    ctx.fillText(text, x + (right ? 5 : -5) * ratio, top + (4 + 14 * row) * ratio);
    ctx.restore();
  };
  const drift = (box, data, height) => {
    const top = (u, min, max) => [0, Math.max(data.alarm * 1.34, (max || 0) * 1.12)];
    return new uPlot({
      width: box.clientWidth, height, cursor: cursor(), legend: { show: false }, padding: [8, 14, 0, 0], tzDate: zoned,
      scales: { x: { time: true, range: () => [data.from, data.to] }, y: { range: top } }, axes: axes(), series: [{}, ...several(data.lines)],
      hooks: {
        drawClear: [(u) => {
          const ctx = u.ctx, y = u.valToPos(data.alarm, "y", true);
          ctx.save(); ctx.fillStyle = colour("medium-soft"); ctx.fillRect(u.bbox.left, u.bbox.top, u.bbox.width, Math.max(0, y - u.bbox.top)); ctx.restore();
        }],
        draw: [(u) => {
          const ctx = u.ctx, ratio = devicePixelRatio, y = u.valToPos(data.alarm, "y", true), taken = [];
          ctx.save();
          ctx.strokeStyle = ctx.fillStyle = colour("medium-text"); ctx.lineWidth = ratio; ctx.setLineDash([4 * ratio, 3 * ratio]);
          ctx.beginPath(); ctx.moveTo(u.bbox.left, y); ctx.lineTo(u.bbox.left + u.bbox.width, y); ctx.stroke();
          ctx.font = `${11 * ratio}px ${family()}`; ctx.textBaseline = "bottom"; ctx.textAlign = "left"; ctx.fillText(data.alarm_text, u.bbox.left + 6 * ratio, y - 3 * ratio);
          ctx.restore();
          for (const mark of data.marks) upright(u, mark.t, mark.text, taken);
        }],
        setCursor: [tip(box, (i) => [moment(data.t[i]), ...data.lines.filter((l) => l.values[i] !== null).map((l) => `${l.name} ${l.values[i].toFixed(3)}`)])],
      },
    }, [data.t, ...data.lines.map((l) => l.values)], box);
  };
  const portion = (v) => (v === null ? "none" : v === 1 ? "100 %" : `${Vigil.number(+(100 * v).toPrecision(2))} %`);
  const scores = (box, data, height) => {
    const every = data.lines.flatMap((l) => l.values).filter((v) => v !== null), least = 10 ** Math.floor(Math.log10(Math.min(0.1, ...every)) + 1e-9);
    const powers = () => { const found = []; for (let v = 1; v >= least * 0.99; v /= 10) found.unshift(+v.toPrecision(6)); return found; };
    const plain = { font: `11px ${family()}`, stroke: colour("text-3"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false } };
    // Live over training: what is compared lies on top.
    const order = [0, 2];
    return new uPlot({
      width: box.clientWidth, height, cursor: { ...cursor(), sync: undefined }, legend: { show: false }, padding: [8, 16, 0, 0],
      scales: { x: { time: false, range: () => [0, 1] }, y: { distr: 3, range: () => [least, 1.4] } },
      axes: [{ ...plain, size: 24, gap: 5, splits: () => [0, 0.2, 0.4, 0.6, 0.8, 1], values: (u, at) => at.map((v) => v.toFixed(1)) },
        { ...plain, size: wide, gap: 8, splits: powers, filter: (u, at) => at, values: (u, at) => at.map(portion) }],
      series: [{}, ...data.lines.map((l, i) => ({ ...several([null, null, null])[order[i]], points: { show: true, size: 4, filter: alone } }))],
      hooks: {
        draw: [(u) => {
          upright(u, data.level, data.level_text, []);
          const ctx = u.ctx, ratio = devicePixelRatio;
          ctx.save(); ctx.font = `${11 * ratio}px ${family()}`;
          // Each at its own line: the one above it, the other below.
          const above = data.lines.map((l) => l.values.filter((v) => v !== null).length);
          data.lines.forEach((line, i) => {
            if (!above[i]) return;
            const at = Math.min(i ? 5 : 8, above[i] - 1), x = u.valToPos(data.t[at], "x", true), y = u.valToPos(line.values[at], "y", true);
            const higher = data.lines.every((other, k) => k === i || (other.values[at] ?? 0) < line.values[at]) || !above[1 - i];
            ctx.fillStyle = colour(i ? "text-2" : "accent"); ctx.textBaseline = higher ? "bottom" : "top"; ctx.textAlign = higher ? "left" : "right";
            ctx.fillText(line.name, x + (higher ? 6 : -6) * ratio, y + (higher ? -6 : 6) * ratio);
          });
          ctx.restore();
        }],
        setCursor: [tip(box, (i) => [`score above ${data.t[i].toFixed(2)}`, ...data.lines.map((l) => `${l.name}: ${portion(l.values[i])}`)])],
      },
    }, [data.t, ...data.lines.map((l) => l.values)], box);
  };
  const kinds = { value, work, drift, scores, events: (b, d, h) => area(b, d, h, "events", "events per s", d.arrived && "arrived"), lag: (b, d, h) => area(b, d, h, "lag", "events behind") };

  const drawAll = () => {
    for (const [box, chart] of charts) if (!box.isConnected) { chart.destroy(); charts.delete(box); }
    for (const box of document.querySelectorAll("[data-chart]")) {
      if (charts.has(box) || !kinds[box.dataset.chart]) continue;
      const source = document.getElementById(box.dataset.source), data = box.vigilData || (source && JSON.parse(source.textContent));
      if (!data || !data.t || !data.t.length) continue;
      const caption = box.parentElement.querySelector("figcaption");
      box.setAttribute("role", "img");
      if (caption && !box.hasAttribute("aria-label")) box.setAttribute("aria-label", caption.textContent.trim().replace(/\s+/g, " "));
      box.vigilData = data;
      charts.set(box, kinds[box.dataset.chart](box, data, box.clientHeight));
    }
  };
  const redraw = () => { for (const [box, chart] of charts) { chart.destroy(); box.replaceChildren(); charts.delete(box); } drawAll(); };
  Vigil.charts = {
    of: (box) => charts.get(box),
    // A chart whose data were changed in place; the axes move only where they must.
    refresh: (box) => { const chart = charts.get(box); if (chart) chart.setData(columns(chart.vigil)); },
    repaint: (box) => { const chart = charts.get(box); if (chart) chart.redraw(false); },
  };

  // ---- The same as a table, made when it is opened
  const linesTable = (data) => {
    const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const text of [data.axis || "time", ...data.lines.map((l) => l.name)]) { const th = document.createElement("th"); th.scope = "col"; th.textContent = text; if (head.cells.length) th.className = "num"; head.append(th); }
    data.t.forEach((t, i) => {
      if (data.lines.every((l) => l.values[i] === null)) return;
      const row = body.insertRow();
      row.insertCell().textContent = data.axis ? t.toFixed(2) : moment(t);
      for (const l of data.lines) { const cell = row.insertCell(); cell.className = "num"; cell.textContent = data.axis ? portion(l.values[i]) : Vigil.number(l.values[i]); }
    });
    return table;
  };
  const fillTable = (details) => {
    const data = JSON.parse(document.getElementById(details.dataset.table).textContent), target = details.querySelector(".table");
    if (!details.open || target.firstChild) return;
    if (data.lines) { target.append(linesTable(data)); return; }
    const names = ["min", "max", "low", "high", "events", "arrived", "anomalies", "lag"].filter((name) => Array.isArray(data[name]));
    const words = { min: "least", max: "greatest", low: "expected from", high: "expected to", events: "events per s", arrived: "come in per s", anomalies: "anomalies", lag: "lag" };
    const table = document.createElement("table"), head = table.createTHead().insertRow(), marks = data.marks || [];
    const titles = ["time", ...names.map((c) => words[c]), ...(marks.length ? ["anomaly"] : [])];
    for (const text of titles) { const th = document.createElement("th"); th.scope = "col"; th.textContent = text; if (text !== "time" && text !== "anomaly") th.className = "num"; head.append(th); }
    const body = table.createTBody();
    data.t.forEach((t, i) => {
      if (names.every((c) => data[c][i] === null)) return;
      const row = body.insertRow();
      row.insertCell().textContent = moment(t);
      for (const c of names) { const cell = row.insertCell(); cell.className = "num"; cell.textContent = Vigil.number(data[c][i]); }
      if (marks.length) row.insertCell().textContent = marks.filter((m) => Math.abs(m.t - t) <= data.step_s / 2).map((m) => `${SEVERITIES[m.severity]} ${Vigil.score(m.score)}`).join(", ");
    });
    target.append(table);
  };
  document.addEventListener("toggle", (event) => { if (event.target.matches && event.target.matches("details[data-table]")) fillTable(event.target); }, true);
  document.body.addEventListener("htmx:afterSettle", drawAll);
  let wait = 0;
  addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(() => { for (const [box, chart] of charts) chart.setSize({ width: box.clientWidth, height: box.clientHeight }); }, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "data-printing"] });
  // Paper is light, whatever the screen is.
  const printing = (on) => { if (on) document.documentElement.dataset.printing = ""; else delete document.documentElement.dataset.printing; redraw(); };
  addEventListener("beforeprint", () => printing(true));
  addEventListener("afterprint", () => printing(false));
  drawAll();
})();
