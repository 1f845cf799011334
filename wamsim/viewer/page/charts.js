// Figures with Plotly, which is large: it is loaded when the first figure is asked for.
(function (wamsim) {
  "use strict";

  let loading = null;

  function plotly() {
    if (!loading) {
      loading = new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = "plotly.min.js";
        script.onload = () => done(window.Plotly);
        script.onerror = () => {
          loading = null;
          failed(new Error("plotly.min.js could not be loaded"));
        };
        document.head.append(script);
      });
    }
    return loading;
  }

  // One figure at a time, with a pause for the page between two: drawing four in one go would
  // hold up videos and keys.
  let last = Promise.resolve();
  function inTurn(job) {
    last = last.then(job, job).then(
      () => new Promise((done) => setTimeout(done)),
      (error) => console.error(error),
    );
    return last;
  }

  const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };

  /**
   * Keep a figure in an element, drawn again when the theme or its width changes.
   *
   * @param {Element} box Its place; give it a height.
   * @param {function(function(string): string): {traces: object[], layout: object}} make
   *   Makes the figure; its argument gives the colour of a variable.
   * @param {{still?: boolean, drawn?: function(object)}} [how] still: no hover, no clicks;
   *   drawn: called with Plotly's element after each drawing.
   * @returns {{draw: function(), remove: function()}} draw: after the data changed.
   */
  function chart(box, make, how) {
    const { still, drawn } = how || {};
    let gone = false;
    let width = 0;

    let asked = false;
    function draw() {
      if (asked) return; // one drawing that waits shows the newest data
      asked = true;
      inTurn(() => {
        asked = false;
        return now();
      });
    }

    async function now() {
      let Plotly;
      try {
        Plotly = await plotly();
      } catch {
        if (!gone)
          wamsim.fill(box, wamsim.el("p.muted", { text: "The figure's script is missing." }));
        return;
      }
      if (gone || !box.clientWidth) return;
      width = box.clientWidth;
      const { traces, layout } = make(wamsim.theme.colour);
      const config = { ...CONFIG, staticPlot: Boolean(still) };
      await Plotly.react(
        box,
        traces,
        { ...base(), ...layout, width, height: box.clientHeight },
        config,
      );
      // Plotly's own buttons and text are one picture to a screen reader: the label says what.
      for (const svg of box.querySelectorAll("svg")) svg.setAttribute("aria-hidden", "true");
      if (drawn && !gone) drawn(box);
    }

    const unheard = wamsim.theme.onChange(draw);
    const observer = new ResizeObserver(() => {
      if (box.clientWidth && box.clientWidth !== width) draw();
    });
    observer.observe(box);
    return {
      draw,
      remove() {
        gone = true;
        unheard();
        observer.disconnect();
        if (window.Plotly && box.data) window.Plotly.purge(box);
      },
    };
  }

  function base() {
    const colour = wamsim.theme.colour;
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: {
        family: getComputedStyle(document.body).fontFamily,
        size: 11,
        color: colour("muted"),
      },
      hoverlabel: {
        bgcolor: colour("surface"),
        bordercolor: colour("line-strong"),
        font: { color: colour("text"), size: 12 },
      },
      showlegend: false,
      dragmode: false,
      margin: { l: 40, r: 10, t: 8, b: 34 },
    };
  }

  /** An axis in the page's lines. */
  function axis(colour, more) {
    return {
      gridcolor: colour("line"),
      linecolor: colour("line-strong"),
      zerolinecolor: colour("line-strong"),
      zeroline: false,
      fixedrange: true,
      ticks: "",
      ...more,
    };
  }

  wamsim.chart = chart;
  wamsim.axis = axis;
})((window.wamsim = window.wamsim || {}));
