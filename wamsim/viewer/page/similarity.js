// Curves of similarity: along a query's horizon, and along the episode.
(function (wamsim) {
  "use strict";
  const { el, format } = wamsim;

  /**
   * Make both figures.
   *
   * @param {function(number)} onPick Called with the query that was clicked.
   * @returns {{root: Element, draw: function(object, number), remove: function()}}
   */
  wamsim.similarity = function (onPick) {
    let who = null;
    let q = 0;
    const near = el("div.plot.tall", { role: "img" });
    const far = el("div.plot.tall", { role: "img" });
    const legend = () =>
      el(
        "span.legend",
        null,
        el("span.key.imagined", { text: "imagined" }),
        el("span.key.still", { text: "nothing moves" }),
      );
    const root = el(
      "div.figures",
      null,
      el(
        "figure.panel",
        null,
        el("figcaption", null, el("span", { text: "Along the horizon of this query" }), legend()),
        near,
      ),
      el(
        "figure.panel",
        null,
        el(
          "figcaption",
          null,
          el("span", { text: "Along the episode: click to jump to a query" }),
          legend(),
        ),
        far,
      ),
    );
    const alongHorizon = wamsim.chart(near, (colour) => {
      const rows = [
        line(who.horizons, who.similarity[q], colour("foreseen"), "imagined"),
        line(who.horizons, who.still[q], colour("muted"), "nothing moves", "dot"),
      ];
      return { traces: rows, layout: axes(colour, "steps ahead", rows) };
    });
    const alongEpisode = wamsim.chart(
      far,
      (colour) => {
        const margins = wamsim.margins(who);
        const steps = who.steps;
        const rows = [
          line(
            steps,
            margins.map((m) => m.similarity),
            colour("foreseen"),
            "imagined",
          ),
          line(
            steps,
            margins.map((m) => m.still),
            colour("muted"),
            "nothing moves",
            "dot",
          ),
        ];
        const layout = axes(colour, "step of the query", rows);
        const at = { type: "line", yref: "paper", x0: steps[q], x1: steps[q], y0: 0, y1: 1 };
        layout.shapes = [{ ...at, line: { color: colour("text"), width: 1 } }];
        layout.hovermode = "x unified";
        return { traces: rows, layout };
      },
      { drawn: listen },
    );

    // Anywhere over the figure, not on a point alone: the nearest query is meant.
    function listen(plot) {
      if (plot.dataset.listening) return;
      plot.dataset.listening = "yes";
      plot.addEventListener("click", (event) => {
        const axis = plot._fullLayout && plot._fullLayout.xaxis;
        if (!axis) return;
        const x = axis.p2l(event.clientX - plot.getBoundingClientRect().left - axis._offset);
        let best = 0;
        who.steps.forEach((s, i) => {
          if (Math.abs(s - x) < Math.abs(who.steps[best] - x)) best = i;
        });
        onPick(best);
      });
    }

    function draw(nextWho, nextQ) {
      who = nextWho;
      q = nextQ;
      const m = wamsim.margins(who)[q];
      near.setAttribute(
        "aria-label",
        `Similarity along the horizon of query ${q + 1}: imagined ${format.fixed(m.similarity, 3)} on average, nothing moves ${format.fixed(m.still, 3)}`,
      );
      far.setAttribute(
        "aria-label",
        "Similarity along the episode, imagined and nothing moves; the buttons above jump to queries",
      );
      alongHorizon.draw();
      alongEpisode.draw();
    }

    return {
      root,
      draw,
      remove() {
        alongHorizon.remove();
        alongEpisode.remove();
      },
    };
  };

  function line(x, y, color, name, dash) {
    return {
      x,
      y,
      name,
      mode: "lines+markers",
      line: { color, width: 1.8, dash },
      marker: { size: 5, color },
      hovertemplate: "%{y:.3f}",
    };
  }

  function axes(colour, title, rows) {
    const numbers = rows.flatMap((row) => row.y).filter(format.known);
    const low = numbers.length ? Math.min(...numbers) : 0;
    const high = numbers.length ? Math.max(...numbers) : 1;
    const room = Math.max(0.01, 0.12 * (high - low));
    return {
      margin: { l: 46, r: 14, t: 10, b: 38 },
      xaxis: wamsim.axis(colour, { title: { text: title, standoff: 6 } }),
      yaxis: wamsim.axis(colour, { range: [low - room, high + room], nticks: 6 }),
    };
  }
})((window.wamsim = window.wamsim || {}));
