/* What pages do beside forms and links: charts, live figures, the menu, copying. Each page works without it. */
"use strict";
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const WRITERS = {
    count: (v) => v.toLocaleString("en-US", { maximumFractionDigits: 1 }),
    units: (v) => v.toLocaleString("en-US", { notation: Math.abs(v) >= 1e4 ? "compact" : "standard", maximumFractionDigits: 1 }),
    dollars: (v) => "$" + v.toLocaleString("en-US", { maximumSignificantDigits: 4 }),
    ms: (v) => (v >= 1000 ? (v / 1000).toLocaleString("en-US", { maximumFractionDigits: 1 }) + " s" : Math.round(v) + " ms"),
    percent: (v) => v.toLocaleString("en-US", { maximumFractionDigits: 1 }) + " %",
  };
  const charts = new Map();

  function options(series, width) {
    const write = WRITERS[series.unit] || WRITERS.count;
    const shown = (u, v) => (v === null || v === undefined ? "–" : write(v));
    const grid = { stroke: css("--line"), width: 1 };
    const axis = { stroke: css("--quiet"), grid, ticks: { show: false }, font: "12px " + css("--sans") };
    const lines = series.series.map((one, n) => {
      const colour = css("--series-" + ((n % 4) + 1));
      const bars = one.kind === "bars";
      return {
        label: one.label, stroke: colour, width: bars ? 0 : 2, value: shown, points: { show: series.x.length < 3 },
        fill: bars ? colour : n === 0 ? colour + "1f" : undefined,
        dash: n === 1 && !bars ? [6, 3] : n === 2 ? [2, 3] : undefined,
        paths: bars ? uPlot.paths.bars({ size: [0.75, 40], radius: 0.2 }) : uPlot.paths.linear(),
      };
    });
    return {
      width, height: 220, legend: { live: true }, tzDate: (ts) => uPlot.tzDate(new Date(ts * 1000), "Etc/UTC"),
      cursor: { points: { size: 7 }, drag: { x: false, y: false } },
      padding: [10, 4, 0, 0],
      scales: { x: { time: true, range: (u, low, high) => margins(series, low, high) }, y: { range: (u, low, high) => [Math.min(0, low || 0), high > 0 ? high * 1.08 : 1] } },
      series: [{ value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }, ...lines],
      axes: [{ ...axis, grid: { show: false }, size: 30, values: axisTimes }, { ...axis, size: 64, values: (u, all) => all.map((v) => write(v)) }],
    };
  }

  /* Half a step at each end, so that no bar is cut. */
  function margins(series, low, high) {
    const xs = series.x, half = xs.length > 1 ? (xs[1] - xs[0]) / 2 : 1800;
    return series.series.some((one) => one.kind === "bars") ? [low - half, high + half] : [low, high > low ? high : low + 1];
  }

  function axisTimes(u, splits) {
    const day = splits.length > 1 && splits[1] - splits[0] >= 86400;
    return splits.map((s) => {
      const at = new Date(s * 1000).toISOString();
      return day || at.slice(11, 16) === "00:00" ? at.slice(5, 10) : at.slice(11, 16);
    });
  }

  function points(series) {
    return [series.x, ...series.series.map((one) => one.values)];
  }

  function draw(holder) {
    const source = document.getElementById(holder.dataset.chart + "-series");
    if (!source || typeof uPlot === "undefined") return;
    const series = JSON.parse(source.textContent);
    const old = charts.get(holder);
    if (old) old.destroy();
    charts.set(holder, new uPlot(options(series, holder.clientWidth), points(series), holder));
  }

  function drawAll(root) {
    root.querySelectorAll("[data-chart]").forEach(draw);
    for (const holder of [...charts.keys()]) if (!holder.isConnected) { charts.get(holder).destroy(); charts.delete(holder); }
  }

  const sized = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const chart = charts.get(entry.target);
      const width = Math.floor(entry.contentRect.width);
      if (chart && width > 0 && Math.abs(chart.width - width) > 1) chart.setSize({ width, height: 220 });
    }
  });
  const observe = () => document.querySelectorAll("[data-chart]").forEach((each) => sized.observe(each));

  /* Figures that move: the server sends texts by name, and the points of charts by id. */
  function live(root) {
    const sign = document.querySelector("[data-live-sign]");
    const say = (on, text) => { if (sign) { sign.classList.toggle("on", on); sign.textContent = text; } };
    let source = null, wait_ms = 3000;
    const apply = (told) => {
      for (const [name, text] of Object.entries(told.texts || {})) {
        for (const each of root.querySelectorAll('[data-live="' + CSS.escape(name) + '"]')) {
          if (each.textContent === text) continue;
          each.textContent = text;
          each.classList.remove("changed");
          void each.offsetWidth;
          each.classList.add("changed");
        }
      }
      for (const [id, series] of Object.entries(told.charts || {})) {
        const holder = root.querySelector('[data-chart="' + CSS.escape(id) + '"]');
        const chart = holder && charts.get(holder);
        if (chart) chart.setData(points(series));
      }
    };
    const open = () => {
      source = new EventSource(root.dataset.liveUrl);
      source.addEventListener("open", () => { wait_ms = 3000; say(true, "live"); });
      source.addEventListener("figures", (event) => apply(JSON.parse(event.data)));
      source.addEventListener("error", () => {
        say(false, "reconnecting");
        /* The browser gives up for good after an answer that is no stream (503 at a restart, say). */
        if (source && source.readyState === EventSource.CLOSED) {
          source = null;
          setTimeout(again, wait_ms);
          wait_ms = Math.min(wait_ms * 2, 60000);
        }
      });
    };
    const again = () => { if (!source && root.isConnected && !document.hidden) open(); };
    const shut = () => { if (source) { source.close(); source = null; } };
    document.addEventListener("visibilitychange", () => { if (document.hidden) shut(); else again(); });
    window.addEventListener("pagehide", shut);
    window.addEventListener("pageshow", again);
    open();
  }

  function menu() {
    const button = document.querySelector("[data-menu]");
    if (!button) return;
    const side = button.closest(".side");
    side.classList.add("no-menu");
    button.addEventListener("click", () => {
      const closed = side.classList.toggle("no-menu");
      button.setAttribute("aria-expanded", String(!closed));
    });
  }

  document.addEventListener("click", (event) => {
    const copy = event.target.closest && event.target.closest("[data-copy]");
    if (copy && navigator.clipboard) {
      const from = document.getElementById(copy.dataset.copy);
      navigator.clipboard.writeText(from.textContent.trim()).then(() => { copy.textContent = "Copied"; });
    }
  });
  document.addEventListener("submit", (event) => {
    const asked = event.target.dataset && event.target.dataset.confirm;
    if (asked && !window.confirm(asked)) event.preventDefault();
  });
  document.addEventListener("htmx:afterSettle", (event) => { drawAll(event.detail.elt.parentNode || document); observe(); });

  menu();
  drawAll(document);
  observe();
  document.querySelectorAll("[data-live-url]").forEach(live);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document));
})();
