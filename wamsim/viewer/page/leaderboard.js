// Policies by suites, with intervals, costs and paired differences.
(function (wamsim) {
  "use strict";
  const { el, fill, format, marks, route } = wamsim;

  const FORMATS = [
    ["csv", "CSV"],
    ["markdown", "Markdown"],
    ["json", "JSON"],
    ["latex", "LaTeX"],
  ];
  const TYPES = {
    csv: "text/csv",
    markdown: "text/markdown",
    json: "application/json",
    latex: "text/x-tex",
  };

  wamsim.views.leaderboard = function (root) {
    let doc = null;
    let params = new URLSearchParams();
    let table = null;
    let shape = null; // columns depend on the suites; made anew when those change

    const reference = wamsim.select("Differences to", [], "", (v) => route.change({ ref: v }));
    const search = wamsim.search("Policy, run", "", (q) => route.change({ q }));
    const tally = el("span.muted", { role: "status" });
    const exports = el("div.toggles", { role: "group", "aria-label": "Export" });
    const place = el("div.table-place");
    const notes = el("ul.notes");
    const tip = wamsim.differenceTip(root);

    fill(
      root,
      el("div.heading", null, el("h1", { text: "Leaderboard" }), tally),
      el(
        "div.tools",
        null,
        search,
        reference,
        el("span.push"),
        el("span.muted", { text: "Export" }),
        exports,
      ),
      place,
      notes,
    );
    const stop = wamsim.data.watch("leaderboard", (next, message) => {
      doc = next;
      if (doc) draw();
      else fill(place, wamsim.notice("No leaderboard yet", message));
    });

    function refId() {
      const asked = params.get("ref");
      if (doc.rows.some((row) => row.run === asked)) return asked;
      const best = doc.rows.find((row) => row.rank !== null) || doc.rows[0];
      return best ? best.run : null;
    }

    function columns() {
      const several = doc.suites.length > 1;
      return [
        {
          id: "rank",
          title: "#",
          tip: "Rank; unranked runs say why",
          width: 46,
          kind: "number",
          sort: (r) => r.rank,
          cell: rank,
        },
        {
          id: "policy",
          title: "Policy, run",
          width: 190,
          grow: 2,
          sort: (r) => r.policy,
          cell: policy,
        },
        ...doc.suites.map((suite) => ({
          id: suite,
          title: suite,
          tip: "Mean of tasks in percent, 95% interval. Hover or focus: paired difference",
          width: 170,
          grow: 2,
          sort: (r) => r.cells[suite] && r.cells[suite].rate,
          cell: (r) => cell(r, suite),
        })),
        ...(several
          ? [
              {
                id: "mean",
                title: "Mean of suites",
                width: 150,
                grow: 1,
                sort: (r) => r.mean && r.mean.rate,
                cell: mean,
              },
            ]
          : []),
        {
          id: "skill",
          title: "Imagination",
          tip: "Skill in each model's own space: it ranks no two models",
          width: 124,
          kind: "number",
          sort: (r) => r.skill && r.skill.value,
          cell: skill,
        },
        {
          id: "errors",
          title: "Errors",
          tip: "Crashes: in no rate, to be run again",
          width: 78,
          kind: "number",
          sort: (r) => r.errors,
          cell: errors,
        },
        {
          id: "latency",
          title: "Latency",
          tip: "Of a query, median over episodes",
          width: 84,
          kind: "number",
          sort: (r) => r.latency_s,
          cell: (r) => format.seconds(r.latency_s),
        },
        {
          id: "pace",
          title: "Episodes/h",
          width: 96,
          kind: "number",
          sort: (r) => r.episodes_per_hour,
          cell: (r) =>
            format.count(
              format.known(r.episodes_per_hour) ? Math.round(r.episodes_per_hour) : null,
            ),
        },
        { id: "notes", title: "Notes", width: 110, grow: 2, cell: remark },
      ];
    }

    function rank(r) {
      return r.rank === null
        ? el("span.muted", { text: format.NONE, title: r.why })
        : el("span.strong", { text: r.rank });
    }

    function policy(r) {
      return marks.two(
        el("a.row-link", { href: route.href(["run", r.run]), text: r.policy, title: r.policy }),
        el("span", { text: r.name }),
      );
    }

    function cell(r, suite) {
      const found = r.cells[suite];
      if (!found) return el("span.muted", { text: format.NONE, title: "not run" });
      const counts = `${format.count(found.successes)} of ${format.count(found.scored)}`;
      const text = found.errors ? `${counts}, ${format.plural(found.errors, "error")}` : counts;
      const range = format.known(found.low) ? ` · ${format.interval([found.low, found.high])}` : "";
      const box = el(
        "button.cell-button",
        { type: "button", "aria-describedby": "difference" },
        wamsim.hidden(`${r.policy}, ${suite}: `),
        marks.rate(found, text + range),
      );
      tip.attach(box, () => ({
        run: r,
        reference: doc.rows.find((x) => x.run === refId()),
        suite,
      }));
      return box;
    }

    function mean(r) {
      if (!r.mean) return el("span.muted", { text: format.NONE });
      const box = el(
        "button.cell-button",
        { type: "button", "aria-describedby": "difference" },
        wamsim.hidden(`${r.policy}, mean of suites: `),
        marks.rate(
          r.mean,
          format.known(r.mean.low) ? format.interval([r.mean.low, r.mean.high]) : "",
        ),
      );
      tip.attach(box, () => ({
        run: r,
        reference: doc.rows.find((x) => x.run === refId()),
        suite: "all",
      }));
      return box;
    }

    function remark(r) {
      const stand = r.stand_in && r.stand_in.length ? marks.standIn() : null;
      const text = [r.why, r.note].filter(Boolean).join("; ");
      const words = text ? el("span.muted", { text, title: text }) : null;
      return stand && words ? marks.two(stand, words) : stand || words || "";
    }

    function draw() {
      const words = (params.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
      const rows = doc.rows.filter((r) => {
        const text = `${r.policy} ${r.name}`.toLowerCase();
        return words.every((word) => text.includes(word));
      });
      const key = JSON.stringify(doc.suites);
      if (shape !== key) {
        shape = key;
        table = wamsim.table({
          label: "Leaderboard",
          rowHeight: 54,
          columns: columns(),
          key: (r) => r.run,
          tone: (r) => (r.rank === null ? "unranked" : "plain"),
          onSort: (sort) => route.change({ sort }),
          empty: () =>
            doc.rows.length
              ? wamsim.notice("No policy matches", "Empty the search box to see all of them.")
              : wamsim.notice(
                  "No scored run yet",
                  "Make one: `wamsim eval --policy oracle --suite tabletop_object`",
                ),
        });
        fill(place, table.root);
      }
      wamsim.setOptions(
        reference.querySelector("select"),
        doc.rows.map((r) => [r.run, `${r.policy} · ${r.name}`]),
        refId(),
      );
      table.setSort(params.get("sort") || "");
      table.setRows(rows);
      const ranked = doc.rows.filter((r) => r.rank !== null).length;
      tally.textContent = `${format.plural(doc.rows.length, "run")}, ${ranked} ranked`;
      fill(
        exports,
        FORMATS.filter(([f]) => doc.exports[f]).map(([f, text]) => download(f, text)),
      );
      fill(
        notes,
        doc.notes.map((n) => el("li", { text: n })),
        el("li", {
          text: "Hover or focus a rate: its paired difference to the chosen run, with McNemar's exact p.",
        }),
        doc.left_out.map((x) => el("li.warn", { text: `${x.name} is left out: ${x.message}` })),
      );
    }

    function download(f, text) {
      return el("button", {
        type: "button",
        text,
        title: `Save ${doc.exports[f].file}`,
        on: { click: () => save(doc.exports[f].file, doc.exports[f].text, TYPES[f]) },
      });
    }

    return {
      update({ params: next }) {
        params = next;
        if (document.activeElement !== search) search.value = params.get("q") || "";
        if (doc) draw();
      },
      remove() {
        stop();
        tip.remove();
      },
    };
  };

  function skill(r) {
    if (!r.skill || !format.known(r.skill.value)) return el("span.muted", { text: format.NONE });
    const { value, low, high, imaginer } = r.skill;
    const main = el("span", { text: format.number(value), title: imaginer });
    return marks.two(main, format.numberInterval(low, high));
  }

  function errors(r) {
    const main = el(r.errors ? "span.warn.strong" : "span.muted", { text: format.count(r.errors) });
    return r.missing
      ? marks.two(main, el("span.warn", { text: `${format.count(r.missing)} missing` }))
      : main;
  }

  // From text, not from an address: it works from disk as well.
  function save(file, text, type) {
    const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
    const link = el("a", { href: url, download: file });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
})((window.wamsim = window.wamsim || {}));
