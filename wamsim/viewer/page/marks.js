// Small drawings that stand in cells and headings: rates, outcomes, states.
(function (wamsim) {
  "use strict";
  const { el, format } = wamsim;

  const WIDE = 200; // units of a whisker's drawing; it stretches to its cell
  const TALL = 14;

  /**
   * Draw an interval with its estimate.
   *
   * @param {number|null} value The estimate.
   * @param {number|null} low Its interval.
   * @param {number|null} high Likewise.
   * @param {[number, number]} [range] Ends of the scale; 0 to 1.
   */
  function whisker(value, low, high, range = [0, 1]) {
    const at = (x) => {
      const part = (x - range[0]) / (range[1] - range[0]);
      return 4 + (WIDE - 8) * Math.max(0, Math.min(1, part));
    };
    const parts = [el("svg:rect.rail", { x: 0, y: TALL / 2 - 2, width: WIDE, height: 4, rx: 2 })];
    if (range[0] < 0) {
      parts.push(el("svg:line.zero", { x1: at(0), x2: at(0), y1: 0, y2: TALL }));
    }
    if (format.known(low) && format.known(high)) {
      const width = Math.max(3, at(high) - at(low));
      parts.push(el("svg:rect.span", { x: at(low), y: TALL / 2 - 4, width, height: 8, rx: 2 }));
    }
    if (format.known(value)) {
      parts.push(
        el("svg:rect.dot", { x: at(value) - 1.5, y: 1, width: 3, height: TALL - 2, rx: 1.5 }),
      );
    }
    return el(
      "svg:svg.whisker",
      { viewBox: `0 0 ${WIDE} ${TALL}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      parts,
    );
  }

  /** A success rate: percent, interval drawn, and under it the counts. */
  function rate(counts, sub) {
    if (!counts || !format.known(counts.rate)) {
      return el("span.muted", { text: format.NONE, title: "no scored episode" });
    }
    return el(
      "div.rate",
      null,
      el("span.value", { text: format.percent(counts.rate) }),
      whisker(counts.rate, counts.low, counts.high),
      sub === undefined ? null : el("span.sub", null, sub),
    );
  }

  /** "12 of 20 · [38.7, 78.1]" */
  function shares(counts) {
    const range = format.known(counts.low)
      ? ` · ${format.interval([counts.low, counts.high])}`
      : "";
    return `${format.count(counts.successes)} of ${format.count(counts.scored)}${range}`;
  }

  function outcome(name, text) {
    const { mark, word, kind } = format.outcome(name);
    return el(
      `span.outcome.${kind}`,
      null,
      el("span.mark", { "aria-hidden": "true", text: mark }),
      el("span", { text: text || word }),
    );
  }

  /** Whether a run can be read at all; its message says why not. */
  wamsim.readable = (run) => Boolean(run.total) && run.state !== "newer" && run.state !== "damaged";

  const STATES = {
    finished: ["finished", ""],
    running: ["running", "good"],
    incomplete: ["incomplete", "warn"],
    newer: ["newer format", "warn"],
    damaged: ["damaged", "warn"],
  };

  function state(run) {
    const [word, kind] = STATES[run.state] || [run.state, ""];
    const missing = run.total && run.total.missing;
    const text = run.state === "incomplete" && missing ? `${format.count(missing)} missing` : word;
    return el(`span.tag${kind ? "." + kind : ""}`, { text, title: run.message || word });
  }

  const standIn = () =>
    el("span.tag.warn", {
      text: "stand-in visuals",
      title: "Pixels are placeholders, not the benchmark's own; physics is exact.",
    });

  /** A number over its quieter explanation. */
  const two = (main, sub) => el("div.two", null, el("span", null, main), el("span.sub", null, sub));

  /** True while somebody writes into a field, so that letters are no commands. */
  wamsim.typing = (event) =>
    event.target.closest &&
    event.target.closest('input:not([type="range"], [type="checkbox"]), select, textarea') !== null;

  wamsim.marks = { whisker, rate, shares, outcome, state, standIn, two };
  wamsim.views = {};
})((window.wamsim = window.wamsim || {}));
