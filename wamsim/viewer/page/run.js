// One run: its tasks, and every episode of it.
(function (wamsim) {
  "use strict";
  const { el, fill, format, marks, route } = wamsim;

  const OUTCOMES = ["success", "failure", "error", "damaged"];

  wamsim.views.run = function (root) {
    let id = null;
    let doc = null;
    let params = new URLSearchParams();
    let stop = () => {};

    const head = el("div.heading");
    const facts = el("dl.facts");
    const tasks = el("nav.tasks", { "aria-label": "Tasks" });
    const search = wamsim.search("Task, reason", "", (q) => route.change({ q }));
    const outcomes = el("div.tools");
    const tally = el("span.muted", { role: "status" });
    const table = wamsim.table({
      label: "Episodes",
      columns: columns(),
      key: (e) => `${e.suite}/${e.task}/${e.trial ?? e.file}`,
      onSort: (sort) => route.change({ sort }),
      empty,
    });
    const body = el(
      "div.run-body",
      null,
      tasks,
      el(
        "div.run-main",
        null,
        el("div.tools", null, search, outcomes, el("span.push"), tally),
        table.root,
      ),
    );

    function columns() {
      return [
        {
          id: "outcome",
          title: "Outcome",
          width: 106,
          sort: (e) => e.outcome,
          cell: (e) => marks.outcome(e.outcome),
        },
        {
          id: "task",
          title: "Task",
          width: 168,
          grow: 3,
          sort: (e) => `${e.suite}/${e.task}`,
          cell: task,
        },
        {
          id: "trial",
          title: "Trial",
          width: 56,
          kind: "number",
          sort: (e) => e.trial,
          cell: (e) => format.count(e.trial),
        },
        {
          id: "steps",
          title: "Steps",
          width: 60,
          kind: "number",
          sort: (e) => e.steps,
          cell: (e) => format.count(e.steps),
        },
        {
          id: "error",
          title: "Imag. error",
          tip: "Normalised squared error of what was imagined; 0 is perfect",
          width: 92,
          kind: "number",
          sort: (e) => e.error,
          cell: (e) => foreseen(e, format.number(e.error)),
        },
        {
          id: "skill",
          title: "Skill",
          tip: "1 - error / error of 'nothing moves'",
          width: 66,
          kind: "number",
          sort: (e) => e.skill,
          cell: (e) => format.number(e.skill),
        },
        {
          id: "value",
          title: "Value",
          tip: "Mean predicted value",
          width: 62,
          kind: "number",
          sort: (e) => e.value,
          cell: (e) => format.number(e.value),
        },
        {
          id: "latency",
          title: "Latency",
          width: 80,
          kind: "number",
          sort: (e) => e.latency_s,
          cell: (e) => format.seconds(e.latency_s),
        },
        {
          id: "wall",
          title: "Wall",
          width: 70,
          kind: "number",
          sort: (e) => e.wall_s,
          cell: (e) => format.seconds(e.wall_s),
        },
        { id: "reason", title: "Reason", width: 126, grow: 2, sort: (e) => e.reason, cell: reason },
      ];
    }

    function task(e) {
      const text = format.words(e.task);
      if (!e.doc) return el("span", { text, title: e.suite });
      const href = route.href(["side", e.suite, e.task, e.trial], { runs: id });
      const data = { soon: e.doc };
      return el("a.row-link", { href, text, data, title: `${e.suite}: ${text}` });
    }

    function foreseen(e, text) {
      if (!e.doc || !format.known(e.error)) return text;
      const href = route.href(["imagination", id, e.suite, e.task, e.trial]);
      return el("a", { href, text, "aria-label": `imagination, error ${text}` });
    }

    function reason(e) {
      return e.reason ? el("span.muted", { text: e.reason, title: e.reason }) : "";
    }

    function all() {
      return [
        ...doc.damaged.map((d) => ({ ...d, outcome: "damaged", reason: d.message, trial: null })),
        ...doc.episodes,
      ];
    }

    function draw() {
      if (!doc.run) return;
      const place = params.get("task") || "";
      const wanted = params.get("outcome") || "";
      const words = (params.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
      const here = all().filter((e) => !place || `${e.suite}/${e.task}` === place);
      const found = here.filter((e) => {
        if (wanted && e.outcome !== wanted) return false;
        const text = `${format.words(e.task)} ${e.suite} ${e.reason || ""}`.toLowerCase();
        return words.every((word) => text.includes(word));
      });
      drawHead(doc.run);
      drawTasks(place);
      const counts = OUTCOMES.map((o) => [o, here.filter((e) => e.outcome === o).length]);
      fill(
        outcomes,
        wamsim.toggles(
          "Outcome",
          [
            ["", "all"],
            ...counts.filter(([, n]) => n).map(([o, n]) => [o, `${o} ${format.count(n)}`]),
          ],
          [wanted],
          ([o]) => route.change({ outcome: o }),
        ),
      );
      table.setSort(params.get("sort") || "");
      table.setRows(found);
      tally.textContent = format.plural(found.length, "episode");
    }

    function drawHead(run) {
      const fact = (name, value, title) =>
        el("div", { title }, el("dt", { text: name }), el("dd", null, value));
      fill(
        head,
        el("h1", { text: run.label }),
        el("span.muted", { text: run.name, title: run.folder }),
        marks.state(run),
        (run.suites || []).some((s) => s.stand_in) ? marks.standIn() : null,
        el("span.push"),
        run.imagines || run.skill
          ? el("a.button", { href: route.href(["imagination", id]), text: "Imagination" })
          : null,
        el("a.button", { href: route.href(["failures", id]), text: "Failures first" }),
      );
      const skill = run.skill;
      fill(
        facts,
        fact("Success", [
          el("strong", { text: `${format.percent(run.total.rate)} %` }),
          ` ${marks.shares(run.total)}`,
        ]),
        fact("Errors", format.count(run.total.errors)),
        run.total.missing
          ? fact(
              "Missing",
              `${format.count(run.total.missing)} of ${format.count(run.total.planned)}`,
            )
          : null,
        skill && format.known(skill.value)
          ? fact(
              "Imagination skill",
              `${format.number(skill.value)} ${format.numberInterval(skill.low, skill.high)}`,
              skill.imaginer,
            )
          : null,
        run.imagination_fault
          ? fact("Imagination", el("span.warn", { text: run.imagination_fault }))
          : null,
        fact("Latency", format.seconds(run.latency_s)),
        fact(
          "Episodes/h",
          format.count(
            format.known(run.episodes_per_hour) ? Math.round(run.episodes_per_hour) : null,
          ),
        ),
        fact("Seed", String(run.seed ?? format.NONE)),
        fact("Provenance", wamsim.cut(run.provenance || format.NONE), run.provenance),
      );
    }

    function drawTasks(place) {
      const entry = (value, title, sub, counts) =>
        el(
          "a.task",
          {
            href: route.href(["run", id], { ...Object.fromEntries(params), task: value || null }),
            "aria-current": value === place ? "true" : null,
            title,
          },
          el("span.task-name", { text: title }),
          marks.rate(counts),
          el("span.sub", { text: sub }),
        );
      const at = tasks.scrollTop;
      const several = new Set(doc.tasks.map((t) => t.suite)).size > 1;
      fill(
        tasks,
        entry("", "All tasks", marks.shares(doc.run.total), doc.run.total),
        doc.tasks.map((t) =>
          entry(
            `${t.suite}/${t.task}`,
            t.instruction || format.words(t.task),
            (several ? `${t.suite} · ` : "") +
              marks.shares(t) +
              (t.errors ? ` · ${format.plural(t.errors, "error")}` : ""),
            t,
          ),
        ),
      );
      tasks.scrollTop = at;
    }

    function empty() {
      if (!doc.episodes.length && !doc.damaged.length) {
        return wamsim.notice(
          "No episodes yet",
          "The run has not finished an episode; they appear here as they do.",
        );
      }
      return wamsim.notice(
        "No episode matches",
        "The filters leave nothing.",
        el("button.button", {
          type: "button",
          text: "Show all",
          on: { click: () => route.change({ q: null, outcome: null, task: null }) },
        }),
      );
    }

    function follow(next) {
      stop();
      id = next;
      doc = null;
      fill(root, wamsim.notice("Reading the run …"));
      stop = wamsim.data.watch(`run/${id}`, (found, message) => {
        if (found && found.run && !wamsim.readable(found.run)) {
          message = found.run.message;
          found = null;
        }
        if (!found || !found.run) {
          doc = null;
          fill(
            root,
            wamsim.notice(
              "This run cannot be shown",
              message,
              el("a.button", { href: "#/runs", text: "All runs" }),
            ),
          );
          return;
        }
        const first = !doc;
        doc = found;
        if (first) fill(root, head, facts, body);
        draw();
      });
    }

    return {
      update({ path, params: next }) {
        params = next;
        if (document.activeElement !== search) search.value = params.get("q") || "";
        if (path[1] !== id) follow(path[1] || "");
        else if (doc) draw();
      },
      remove: () => stop(),
    };
  };
})((window.wamsim = window.wamsim || {}));
