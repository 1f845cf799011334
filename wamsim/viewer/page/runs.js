// Every run: filter, sort, tick two or more to compare.
(function (wamsim) {
  "use strict";
  const { el, fill, format, marks, route } = wamsim;

  const MOST = 4; // episodes side by side

  wamsim.views.runs = function (root) {
    let doc = null;
    let params = new URLSearchParams();

    const search = wamsim.search("Policy, run, suite", "", (q) => route.change({ q }));
    const suite = wamsim.select("Suite", [["", "all"]], "", (v) => route.change({ suite: v }));
    const state = wamsim.select("State", [["", "all"]], "", (v) => route.change({ state: v }));
    const compare = el("a.button.primary");
    const clear = el("button.button.quiet", {
      type: "button",
      text: "Clear",
      on: { click: () => route.change({ sel: null }) },
    });
    const tally = el("span.muted", { role: "status" });
    const table = wamsim.table({
      label: "Runs",
      rowHeight: 48,
      columns: columns(),
      key: (run) => run.id,
      tone: (run) => (chosen().includes(run.id) ? "chosen" : "plain"),
      onSort: (sort) => route.change({ sort: sort === "-date" ? null : sort }),
      empty,
    });

    fill(
      root,
      el("div.heading", null, el("h1", { text: "Runs" }), tally),
      el("div.tools", null, search, suite, state, el("span.push"), clear, compare),
      table.root,
    );
    const stop = wamsim.data.watch("runs", (next, message) => {
      doc = next || { runs: [], empty: message };
      draw();
    });

    function columns() {
      return [
        {
          id: "tick",
          title: "",
          width: 40,
          kind: "tick",
          cell: tick,
          head: () => wamsim.hidden("compare"),
        },
        {
          id: "policy",
          title: "Policy, run",
          width: 190,
          grow: 2,
          sort: (run) => run.label,
          cell: name,
        },
        { id: "suites", title: "Suites", width: 150, grow: 1, cell: suites },
        {
          id: "rate",
          title: "Success %, 95% interval",
          tip: "Over scored episodes, with Wilson's interval; errors are in no rate",
          width: 200,
          grow: 1,
          sort: (run) => run.total && run.total.rate,
          cell: (run) => marks.rate(run.total, run.total && marks.shares(run.total)),
        },
        {
          id: "errors",
          title: "Errors",
          tip: "Crashes: in no rate, to be run again",
          width: 94,
          kind: "number",
          sort: (run) => run.total && run.total.errors,
          cell: errors,
        },
        {
          id: "skill",
          title: "Imagination",
          tip: "Skill: 1 - error / error of 'nothing moves'. 1 is perfect, 0 is no better than a still picture",
          width: 124,
          kind: "number",
          sort: (run) => run.skill && run.skill.value,
          cell: skill,
        },
        {
          id: "latency",
          title: "Latency",
          tip: "Of a query of the policy, median over episodes",
          width: 82,
          kind: "number",
          sort: (run) => run.latency_s,
          cell: (run) => format.seconds(run.latency_s),
        },
        {
          id: "pace",
          title: "Episodes/h",
          width: 92,
          kind: "number",
          sort: (run) => run.episodes_per_hour,
          cell: (run) => format.count(rounded(run.episodes_per_hour)),
        },
        {
          id: "date",
          title: "Date",
          width: 148,
          falling: true,
          sort: (run) => Date.parse(run.updated || run.created) || null,
          cell: (run) => marks.two(format.date(unix(run.updated || run.created)), marks.state(run)),
        },
        {
          id: "provenance",
          title: "Provenance",
          width: 108,
          grow: 1,
          sort: (run) => run.provenance,
          cell: provenance,
        },
      ];
    }

    function tick(run) {
      const on = chosen().includes(run.id);
      return el("input", {
        type: "checkbox",
        checked: on,
        disabled: !wamsim.readable(run) || (!on && chosen().length >= MOST),
        "aria-label": `compare ${run.label}, run ${run.name}`,
        on: {
          change: () => {
            const rest = chosen().filter((id) => id !== run.id);
            route.change({ sel: on ? rest : [...rest, run.id] });
          },
        },
      });
    }

    function chosen() {
      return route.list(params, "sel");
    }

    function matching() {
      const words = (params.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
      return doc.runs.filter((run) => {
        const text = [run.label, run.name, run.provenance, ...ids(run)].join(" ").toLowerCase();
        if (!words.every((word) => text.includes(word))) return false;
        if (params.get("suite") && !ids(run).includes(params.get("suite"))) return false;
        return !params.get("state") || run.state === params.get("state");
      });
    }

    function draw() {
      const all = (values) => [["", "all"], ...[...new Set(values)].sort().map((v) => [v, v])];
      wamsim.setOptions(
        suite.querySelector("select"),
        all(doc.runs.flatMap(ids)),
        params.get("suite") || "",
      );
      wamsim.setOptions(
        state.querySelector("select"),
        all(doc.runs.map((r) => r.state)),
        params.get("state") || "",
      );
      const rows = matching();
      table.setSort(params.get("sort") || "-date");
      table.setRows(rows);
      const total = format.plural(doc.runs.length, "run");
      tally.textContent =
        rows.length === doc.runs.length ? total : `${format.count(rows.length)} of ${total}`;
      const sel = chosen();
      clear.hidden = !sel.length;
      if (sel.length > 1) compare.setAttribute("href", route.href(["side"], { runs: sel }));
      else compare.removeAttribute("href");
      compare.setAttribute("aria-disabled", String(sel.length < 2));
      compare.textContent =
        sel.length > 1 ? `Compare ${sel.length} runs` : "Tick two or more to compare";
    }

    function empty() {
      if (doc.runs.length) {
        return wamsim.notice(
          "No run matches",
          "The filters leave nothing.",
          el("button.button", {
            type: "button",
            text: "Show all",
            on: { click: () => route.change({ q: null, suite: null, state: null }) },
          }),
        );
      }
      return wamsim.notice("No runs yet", doc.empty || "There is nothing to show.");
    }

    return {
      update(now) {
        params = now.params;
        if (document.activeElement !== search) search.value = params.get("q") || "";
        if (doc) draw();
      },
      remove: stop,
    };
  };

  const ids = (run) => (run.suites || []).map((suite) => suite.name);
  const unix = (iso) => (iso ? Date.parse(iso) / 1000 : null);
  const rounded = (x) => (format.known(x) ? Math.round(x) : null);

  function name(run) {
    if (!wamsim.readable(run)) {
      return marks.two(
        el("span.strong", { text: run.name }),
        el("span", { text: run.message, title: run.message }),
      );
    }
    return marks.two(
      el("a.row-link", {
        href: route.href(["run", run.id]),
        text: run.label || run.name,
        title: run.label,
      }),
      el("span", { text: run.name, title: run.folder }),
    );
  }

  // The version leads the line and seldom differs: what differs comes first here.
  function provenance(run) {
    const text = (run.provenance || format.NONE).replace(/^wamsim [^,]*, /, "");
    return el("span.muted", { text, title: run.provenance });
  }

  function suites(run) {
    const text = ids(run).join(", ");
    const box = el("span", { text, title: (run.suites || []).map((s) => s.id).join(", ") });
    return (run.suites || []).some((s) => s.stand_in) ? marks.two(box, marks.standIn()) : box;
  }

  function errors(run) {
    if (!wamsim.readable(run)) return el("span.muted", { text: format.NONE });
    const n = run.total.errors;
    const sub = run.total.damaged ? format.plural(run.total.damaged, "damaged", "damaged") : null;
    const main = el(n ? "span.warn.strong" : "span.muted", { text: format.count(n) });
    return sub ? marks.two(main, el("span.warn", { text: sub })) : main;
  }

  function skill(run) {
    if (run.imagination === "measuring") return el("span.muted", { text: "measuring …" });
    if (run.imagination === "fault") {
      return el("span.warn", { text: "fault", title: run.imagination_fault });
    }
    if (!run.skill || !format.known(run.skill.value))
      return el("span.muted", { text: format.NONE });
    const { value, low, high, imaginer, world_model } = run.skill;
    const main = el("span", {
      text: format.number(value),
      title: world_model ? `${imaginer}, a world model beside the policy` : imaginer,
    });
    return marks.two(main, format.numberInterval(low, high));
  }
})((window.wamsim = window.wamsim || {}));
