// Actions, gripper and value over an episode, with a cursor that moves with the video.
(function (wamsim) {
  "use strict";
  const { el, fill, format } = wamsim;

  const LEFT = 40; // pixels for the numbers of the y axes
  const RIGHT = 10;
  const HEAD = 22; // a row's words
  const ROW = 58; // a row's curve
  const FOOT = 22; // the numbers of the x axis
  const PER_ROW = 3; // action channels that share a row: a translation, a rotation
  const LINES = ["series-0", "series-1", "series-2", "series-3"];

  /**
   * Draw an episode's curves.
   *
   * @param {Element} box Its place.
   * @param {object} doc An episode document.
   * @param {number} last The last step of the longest episode beside it: the common axis.
   * @param {function(number)} onSeek Called with the step that was clicked.
   * @param {boolean} roomy Whether there is room for where the hand is, too.
   */
  wamsim.curves = function (box, doc, last, onSeek, roomy) {
    const rows = rowsOf(doc).concat(roomy ? placesOf(doc) : []);
    const height = rows.length * (HEAD + ROW) + FOOT;
    const place = el("div.plot", {
      role: "img",
      "aria-label": `Curves over ${doc.steps} steps: ${rows.map((r) => r.title).join(", ")}`,
      style: { height: `${height}px` },
    });
    const cursor = el("div.cursor", { "aria-hidden": "true" });
    const heads = rows.map((row, i) => {
      const values = row.lines.map((line, j) =>
        el("span.reading", { style: { color: `var(--${LINES[j]})` } }, line.label, " ", el("b")),
      );
      return el(
        "div.plot-head",
        { style: { top: `${i * (HEAD + ROW)}px` } },
        el("span.muted", { text: row.title }),
        values,
      );
    });
    const outer = el("div.curves", null, place, heads, cursor);
    fill(box, outer);
    if (!rows.length) {
      fill(box, el("p.muted", { text: "No actions are recorded." }));
      return { cursor() {}, remove() {} };
    }

    const figure = wamsim.chart(place, make, { still: true });
    figure.draw();

    function make(colour) {
      const inner = height - FOOT;
      const layout = {
        margin: { l: LEFT, r: RIGHT, t: 0, b: FOOT },
        xaxis: wamsim.axis(colour, {
          range: [0, last],
          anchor: `y${rows.length > 1 ? rows.length : ""}`,
          nticks: 7,
        }),
        shapes: [],
      };
      const traces = [];
      rows.forEach((row, i) => {
        const n = i ? String(i + 1) : "";
        const top = i * (HEAD + ROW) + HEAD;
        layout[`yaxis${n}`] = wamsim.axis(colour, {
          domain: [1 - (top + ROW) / inner, 1 - top / inner],
          range: row.range,
          tickvals: row.ticks,
          zeroline: row.ticks.includes(0),
        });
        row.lines.forEach((line, j) =>
          traces.push({
            x: line.x,
            y: line.y,
            yaxis: `y${n}`,
            mode: line.points ? "lines+markers" : "lines",
            line: { color: colour(LINES[j]), width: 1.4, shape: "hv" },
            marker: { size: 4 },
          }),
        );
        if (doc.success_step !== null && doc.success_step !== undefined) {
          layout.shapes.push(vertical(doc.success_step, `y${n}`, colour("good")));
        }
        if (doc.frames - 1 < last)
          layout.shapes.push(after(doc.frames - 1, last, `y${n}`, colour("sunken")));
      });
      return { traces, layout };
    }

    let wide = 0; // pixels; asking the page at every step would lay it out anew each time
    function at(step) {
      cursor.style.setProperty(
        "transform",
        `translateX(${LEFT + (wide * step) / Math.max(1, last)}px)`,
      );
      rows.forEach((row, i) => {
        const texts = heads[i].querySelectorAll("b");
        row.lines.forEach((line, j) => {
          texts[j].textContent = format.fixed(line.at(Math.min(step, doc.steps)), 2);
        });
      });
    }

    let now = 0;
    const observer = new ResizeObserver(([entry]) => {
      wide = entry.contentRect.width - LEFT - RIGHT;
      at(now);
    });
    observer.observe(outer);

    function seek(event) {
      const x = event.clientX - outer.getBoundingClientRect().left - LEFT;
      onSeek(Math.round((last * x) / wide));
    }
    outer.addEventListener("pointerdown", (event) => {
      outer.setPointerCapture(event.pointerId);
      seek(event);
    });
    outer.addEventListener("pointermove", (event) => {
      if (outer.hasPointerCapture(event.pointerId)) seek(event);
    });

    return {
      cursor(step) {
        now = step;
        at(step);
      },
      remove() {
        observer.disconnect();
        figure.remove();
      },
    };
  };

  function rowsOf(doc) {
    const rows = [];
    const actions = doc.actions;
    if (actions && doc.steps) {
      const x = Array.from({ length: doc.steps }, (_, t) => t);
      const gripper = new Set(actions.gripper || []);
      const channels = actions.labels.map((label, c) => ({
        label,
        low: actions.low && actions.low[c],
        high: actions.high && actions.high[c],
        x,
        y: actions.values[c],
        at: (t) => actions.values[c][Math.min(t, doc.steps - 1)],
        gripper: gripper.has(c),
      }));
      const moving = channels.filter((c) => !c.gripper);
      for (let i = 0; i < moving.length; i += PER_ROW) {
        const some = moving.slice(i, i + PER_ROW);
        rows.push(rowOf(groupName(some.map((c) => c.label)), some));
      }
      const grips = channels.filter((c) => c.gripper);
      if (grips.length) rows.push(rowOf("gripper", grips));
    }
    if (doc.value && doc.value.steps.length) {
      const { steps, values } = doc.value;
      const at = (t) => values[steps.findLastIndex((s) => s <= t)];
      rows.push(rowOf("value", [{ label: "", x: steps, y: values, points: true, at }]));
    }
    return rows;
  }

  function placesOf(doc) {
    return (doc.state || [])
      .filter((state) => state.name === "eef_pos")
      .map((state) =>
        rowOf(
          `${state.title}, ${state.unit}`,
          state.labels.map((label, c) => ({
            label,
            x: state.values[c].map((_, t) => t),
            y: state.values[c],
            at: (t) => state.values[c][t],
          })),
        ),
      );
  }

  // Conventions call channels dx dy dz, drx dry drz; two arms put a word before them.
  function groupName(labels) {
    if (labels.every((label) => /(^|[^a-z])d?[xyz]$/.test(label))) return "translation";
    if (labels.every((label) => /(^|[^a-z])d?r[xyz]$/.test(label))) return "rotation";
    return "action";
  }

  function rowOf(title, lines) {
    const numbers = lines.flatMap((l) => l.y).filter(format.known);
    const low = Math.min(...lines.map((l) => l.low).filter(format.known), ...numbers);
    const high = Math.max(...lines.map((l) => l.high).filter(format.known), ...numbers);
    const room = (high - low || 1) * 0.08;
    const short = (x) => Number(x.toPrecision(2));
    const ticks = low < 0 && high > 0 ? [short(low), 0, short(high)] : [short(low), short(high)];
    return { title, lines, ticks, range: [low - room, high + room] };
  }

  function vertical(x, yref, color) {
    return {
      type: "line",
      xref: "x",
      yref: `${yref} domain`,
      x0: x,
      x1: x,
      y0: 0,
      y1: 1,
      line: { color, width: 1.5, dash: "dot" },
    };
  }

  function after(x0, x1, yref, fillcolor) {
    return {
      type: "rect",
      layer: "below",
      xref: "x",
      yref: `${yref} domain`,
      x0,
      x1,
      y0: 0,
      y1: 1,
      fillcolor,
      line: { width: 0 },
    };
  }
})((window.wamsim = window.wamsim || {}));
