// A whole episode, query by query: where did imagination hold, where did it break?
(function (wamsim) {
  "use strict";
  const { el, fill, format } = wamsim;

  const ROOMY = 32; // queries that leave each room for a picture

  /** Mean over executed horizons of similarity, of "nothing moves", and their difference. */
  wamsim.margins = function (who) {
    return who.steps.map((step, q) => {
      const at = who.horizons
        .map((_, k) => k)
        .filter(
          (k) =>
            who.executed[q][k] &&
            format.known(who.similarity[q][k]) &&
            format.known(who.still[q][k]),
        );
      const mean = (rows) =>
        at.length ? at.reduce((sum, k) => sum + rows[q][k], 0) / at.length : null;
      const similarity = mean(who.similarity);
      const still = mean(who.still);
      return { step, similarity, still, margin: at.length ? similarity - still : null };
    });
  };

  /**
   * Make the strip.
   *
   * @param {function(number)} onPick Called with a query.
   * @returns {{root: Element, draw: function, mark: function}}
   */
  wamsim.strip = function (onPick) {
    const root = el("div.strip", {
      role: "group",
      "aria-label": "Queries of the episode",
      tabindex: "-1",
    });
    let buttons = [];

    function draw(who, worst) {
      const margins = wamsim.margins(who);
      const most = Math.max(1e-9, ...margins.map((m) => Math.abs(m.margin || 0)));
      const roomy = margins.length <= ROOMY;
      const strip = roomy && who.pictures && who.pictures.strip;
      const every = Math.ceil(margins.length / ROOMY); // steps that are written
      root.classList.toggle("dense", !roomy);
      buttons = margins.map((m, q) => {
        const better = m.margin !== null && m.margin > 0;
        const height = m.margin === null ? 0 : Math.max(4, (100 * Math.abs(m.margin)) / most);
        const words =
          m.margin === null
            ? "nothing to compare"
            : `similarity ${format.fixed(m.similarity, 3)}, nothing moves ${format.fixed(m.still, 3)}`;
        return el(
          "button.query",
          {
            type: "button",
            title: `query ${q + 1} at step ${m.step}: ${words}`,
            "aria-label": `query ${q + 1}, step ${m.step}: ${words}`,
            on: { click: () => onPick(q) },
          },
          strip ? thumbs(strip, q) : null,
          el(
            "span.bars",
            null,
            el(
              "span.half",
              null,
              better ? el("span.bar-up", { style: { height: `${height}%` } }) : null,
            ),
            el(
              "span.half.low",
              null,
              m.margin !== null && !better
                ? el("span.bar-down", { style: { height: `${height}%` } })
                : null,
            ),
          ),
          el(q % every ? "span.query-step.seldom" : "span.query-step", { text: m.step }),
          m.step === worst
            ? el("span.worst", { text: "worst", title: "Where imagination did worst" })
            : null,
        );
      });
      fill(root, buttons);
    }

    function thumbs(strip, q) {
      return ["real", "imagined"]
        .filter((row) => strip.rows.includes(row))
        .map((row) =>
          wamsim.sheets.cell(
            strip.url,
            {
              rows: strip.rows.length,
              columns: strip.columns,
              row: strip.rows.indexOf(row),
              column: q,
            },
            strip.cell,
            "",
          ),
        );
    }

    function mark(q) {
      buttons.forEach((button, i) => {
        button.setAttribute("aria-pressed", String(i === q));
        button.tabIndex = i === q ? 0 : -1; // one stop for Tab; arrows go on
      });
      const at = buttons[q];
      if (!at) return;
      const left = at.offsetLeft - root.offsetLeft;
      if (left < root.scrollLeft || left + at.offsetWidth > root.scrollLeft + root.clientWidth) {
        root.scrollLeft = left - root.clientWidth / 2;
      }
      if (root.contains(document.activeElement)) at.focus({ preventScroll: true });
    }

    return { root, draw, mark };
  };
})((window.wamsim = window.wamsim || {}));
