// The paired difference of two runs, beside the cell that is hovered or focused.
(function (wamsim) {
  "use strict";
  const { el, fill, format, marks, route } = wamsim;

  wamsim.differenceTip = function (root) {
    const tip = el("div.tip.panel", { id: "difference", role: "tooltip", hidden: true });
    let current = null;
    document.body.append(tip);
    const onKey = (event) => {
      if (event.key === "Escape") hide();
    };
    document.addEventListener("keydown", onKey);
    root.addEventListener("scroll", hide, true);

    function attach(box, about) {
      box.addEventListener("mouseenter", () => show(box, about()));
      box.addEventListener("focus", () => show(box, about()));
      box.addEventListener("mouseleave", hide);
      box.addEventListener("blur", hide);
      box.addEventListener("click", () => {
        const { run, reference } = about();
        if (run !== reference)
          location.hash = route.href(["side"], { runs: [run.run, reference.run] });
      });
    }

    async function show(box, { run, reference, suite }) {
      current = box;
      if (!reference || run.run === reference.run) {
        fill(tip, el("p.muted", { text: "Differences are to this run. Choose another above." }));
        place(box);
        return;
      }
      fill(tip, el("p.muted", { text: "Comparing …" }));
      place(box);
      const [doc, message] = await wamsim.data.get(`compare/${run.run}/${reference.run}`);
      if (current !== box) return;
      const row = doc && doc.suites && doc.suites.find((s) => s.suite === suite);
      fill(
        tip,
        row
          ? paired(row, run, reference)
          : el("p", {
              text: message || (doc && doc.message) || "They share no episode of this suite.",
            }),
      );
      place(box);
    }

    function paired(row, a, b) {
      const line = (name, value) => [el("dt", { text: name }), el("dd", { text: value })];
      const out = Object.entries(row.left_out || {}).filter(([, n]) => n);
      return [
        el(
          "div.tip-names",
          null,
          el("span.strong", { text: a.policy }),
          el("span.muted", { text: " minus " }),
          el("span.strong", { text: b.policy }),
        ),
        el(
          "div.tip-main",
          null,
          el("span.tip-value", { text: format.points(row.difference) }),
          el("span.muted", {
            text: `points ${format.interval(format.known(row.low) ? [row.low, row.high] : null)}`,
          }),
          el("span.push.strong", {
            text: format.known(row.p)
              ? `p ${row.p < 0.001 ? "" : "= "}${format.pValue(row.p)}`
              : "",
          }),
        ),
        marks.whisker(row.difference, row.low, row.high, [-1, 1]),
        el(
          "dl.pairs",
          null,
          line("pairs", format.count(row.n)),
          line("both succeed", format.count(row.both)),
          line("only the first", format.count(row.only_a)),
          line("only the second", format.count(row.only_b)),
          line("neither", format.count(row.neither)),
        ),
        out.length
          ? el("p.muted", { text: `Left out: ${out.map(([why, n]) => `${n} ${why}`).join(", ")}` })
          : null,
        el("p.muted", { text: "Click: both side by side." }),
      ];
    }

    function place(box) {
      tip.hidden = false;
      const at = box.getBoundingClientRect();
      const own = tip.getBoundingClientRect();
      const left = Math.max(8, Math.min(at.left, window.innerWidth - own.width - 8));
      const below = at.bottom + 6 + own.height < window.innerHeight;
      tip.style.setProperty("left", `${left}px`);
      tip.style.setProperty(
        "top",
        `${below ? at.bottom + 6 : Math.max(8, at.top - own.height - 6)}px`,
      );
    }

    function hide() {
      current = null;
      tip.hidden = true;
    }

    return {
      attach,
      remove() {
        document.removeEventListener("keydown", onKey);
        tip.remove();
      },
    };
  };
})((window.wamsim = window.wamsim || {}));
