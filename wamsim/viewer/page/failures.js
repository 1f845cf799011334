// Failed episodes first: small moving pictures, grouped by task.
(function (wamsim) {
  "use strict";
  const { el, fill, format, route } = wamsim;

  const FIRST = 24; // cards of a task before "show all"
  const ORDERS = [
    ["error", "imagination error, worst first"],
    ["value", "predicted value, most confident first"],
    ["steps", "steps, shortest first"],
    ["trial", "trial"],
  ];

  wamsim.views.failures = function (root) {
    let params = new URLSearchParams();
    let id = null;
    let doc = null;
    let stops = [];
    let turn = 0;
    const groups = new Map(); // task -> its section, kept while the run grows

    const tally = el("span.muted", { role: "status" });
    const runBox = wamsim.select("Run", [], "", (run) =>
      route.go(route.href(["failures", run]), { push: true }),
    );
    const task = wamsim.select("Task", [["", "all"]], "", (v) => route.change({ task: v }));
    const order = wamsim.select("Sort by", ORDERS, "error", (v) => route.change({ sort: v }));
    const grid = el("div.failures");
    const scroll = el(
      "div.view-scroll",
      { tabindex: "0", role: "region", "aria-label": "Failed episodes" },
      grid,
    );
    const body = [
      el("div.heading", null, el("h1", { text: "Failures first" }), tally),
      el("div.tools", null, runBox, task, order),
      scroll,
    ];
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

    const line = new wamsim.Line(2);

    // A preview is asked for when it comes near, and plays while it is seen.
    const watcher = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting && !target.getAttribute("src")) line.add(target, target.dataset.src);
          if (!isIntersecting) line.skip(target);
          target.autoplay = isIntersecting && !calm; // for those that are not there yet
          if (target.autoplay && target.getAttribute("src")) target.play().catch(() => {});
          else if (!target.autoplay) target.pause();
        }
      },
      { root: scroll, rootMargin: "120px" },
    );

    async function choose() {
      const mine = ++turn;
      id = null;
      fill(root, wamsim.notice("Looking for failures …"));
      const [runs, message] = await wamsim.usableRuns();
      if (mine !== turn) return;
      const failing = runs.find((r) => r.total.scored > r.total.successes) || runs[0];
      if (!failing)
        return wamsim.sentencePage(
          root,
          "No episodes yet",
          message || "Make a run first: `wamsim eval --policy oracle --suite tabletop_object`",
        );
      route.go(route.href(["failures", failing.id], Object.fromEntries(params)));
    }

    function open() {
      const mine = ++turn;
      for (const stop of stops) stop();
      doc = null;
      groups.clear();
      fill(grid);
      fill(root, body);
      stops = [
        wamsim.data.watch("runs", (runs) => {
          if (mine !== turn || !runs) return;
          wamsim.setOptions(
            runBox.querySelector("select"),
            wamsim.runOptions(runs.runs.filter(wamsim.readable)),
            id,
          );
        }),
        wamsim.data.watch(`run/${id}`, (next, message) => {
          if (mine !== turn) return;
          if (!next || !next.run)
            return wamsim.sentencePage(root, "This run cannot be shown", message);
          doc = next;
          draw();
        }),
      ];
    }

    function draw() {
      const failed = doc.episodes.filter((e) => e.outcome === "failure");
      const names = [...new Set(failed.map((e) => `${e.suite}/${e.task}`))];
      wamsim.setOptions(
        task.querySelector("select"),
        [["", "all"], ...names.map((n) => [n, format.words(n.split("/")[1])])],
        params.get("task") || "",
      );
      const sort = ORDERS.some(([o]) => o === params.get("sort")) ? params.get("sort") : "error";
      order.querySelector("select").value = sort;
      const scored = doc.run.total.scored;
      tally.textContent = `${format.count(failed.length)} of ${format.plural(scored, "scored episode")} failed`;
      const wanted = names.filter((n) => !params.get("task") || params.get("task") === n);
      if (!failed.length) {
        groups.clear();
        fill(
          grid,
          scored
            ? wamsim.notice(
                "Nothing failed",
                "Every scored episode of this run is a success. Errors, if any, are listed with the run.",
                el("a.button", { href: route.href(["run", id]), text: "All episodes" }),
              )
            : wamsim.notice("Nothing is scored yet", "Failures appear here as episodes finish."),
        );
        return;
      }
      const open = route.list(params, "open");
      const sections = wanted.map((n) =>
        section(
          n,
          sorted(
            failed.filter((e) => `${e.suite}/${e.task}` === n),
            sort,
          ),
          open.includes(n),
        ),
      );
      [...grid.children].forEach((child) => sections.includes(child) || child.remove());
      sections.forEach(
        (s, i) => grid.children[i] === s || grid.insertBefore(s, grid.children[i] || null),
      );
    }

    function sorted(list, sort) {
      const columns = [
        { id: "error", sort: (e) => e.error },
        { id: "value", sort: (e) => e.value },
        { id: "steps", sort: (e) => e.steps },
        { id: "trial", sort: (e) => e.trial },
      ];
      return wamsim.sorted(list, { error: "-error", value: "-value" }[sort] || sort, columns);
    }

    function section(name, list, all) {
      if (!groups.has(name)) {
        const cards = el("ul.cards");
        groups.set(name, {
          cards,
          head: el("div.heading"),
          more: el("div"),
          made: new Map(),
          root: null,
        });
        const g = groups.get(name);
        g.root = el(
          "section.group",
          { "aria-label": format.words(name.split("/")[1]) },
          g.head,
          cards,
          g.more,
        );
      }
      const g = groups.get(name);
      const info = doc.tasks.find((t) => `${t.suite}/${t.task}` === name);
      fill(
        g.head,
        el("h2", { text: (info && info.instruction) || format.words(name.split("/")[1]) }),
        el("span.muted", {
          text: `${format.count(list.length)} of ${format.count(info ? info.scored : list.length)} failed · ${name.split("/")[0]}`,
        }),
      );
      const shown = all ? list : list.slice(0, FIRST);
      g.root.style.setProperty("--cards", Math.max(2, shown.length));
      const cards = shown.map((e) => {
        if (!g.made.has(e.trial)) g.made.set(e.trial, card(e));
        return g.made.get(e.trial);
      });
      [...g.cards.children].forEach((child) => cards.includes(child) || child.remove());
      cards.forEach(
        (c, i) => g.cards.children[i] === c || g.cards.insertBefore(c, g.cards.children[i] || null),
      );
      fill(
        g.more,
        list.length > shown.length
          ? el("button.button", {
              type: "button",
              text: `Show all ${format.count(list.length)}`,
              on: { click: () => route.change({ open: [...route.list(params, "open"), name] }) },
            })
          : null,
      );
      return g.root;
    }

    function card(e) {
      const label = `trial ${e.trial}, ${e.steps} steps`;
      const video = el("video", {
        muted: true,
        loop: true,
        playsinline: "",
        preload: "auto",
        tabindex: "-1",
        "aria-hidden": "true",
        disablepictureinpicture: "",
      });
      const cover = el("span.cover", { text: e.preview ? "drawing …" : "no preview" });
      if (e.preview) {
        video.dataset.src = e.preview;
        watcher.observe(video);
        video.addEventListener("loadeddata", () => (cover.hidden = true));
        video.addEventListener(
          "error",
          async () => (cover.textContent = await wamsim.data.why(e.preview)),
        );
      }
      const watch = e.doc ? route.href(["side", e.suite, e.task, e.trial], { runs: id }) : null;
      const imagined =
        e.doc && format.known(e.error)
          ? route.href(["imagination", id, e.suite, e.task, e.trial])
          : null;
      return el(
        "li.card.panel",
        null,
        el(
          "a.card-main",
          { href: watch, "aria-label": `watch ${label}`, data: e.doc ? { soon: e.doc } : {} },
          el("span.frame", null, video, cover),
        ),
        el(
          "div.card-text",
          null,
          el(
            "div.card-line",
            null,
            el("span.strong", { text: `Trial ${e.trial}` }),
            el("span.muted", { text: `${format.count(e.steps)} steps` }),
          ),
          format.known(e.error)
            ? el(
                "div.card-line",
                null,
                el("a", {
                  href: imagined,
                  text: "Imag. error",
                  "aria-label": `imagination of trial ${e.trial}`,
                }),
                el("span", { text: format.number(e.error) }),
              )
            : null,
          format.known(e.value)
            ? el(
                "div.card-line",
                null,
                el("span.muted", { text: "Value" }),
                el("span", { text: format.number(e.value) }),
              )
            : null,
          e.reason ? el("div.sub.cut", { text: e.reason, title: e.reason }) : null,
        ),
      );
    }

    return {
      update({ path, params: next }) {
        params = next;
        if (!path[1]) return void choose();
        if (path[1] !== id) {
          id = path[1];
          open();
        } else if (doc) draw();
      },
      remove() {
        turn++;
        for (const stop of stops) stop();
        watcher.disconnect();
        for (const video of grid.querySelectorAll("video")) line.drop(video);
      },
    };
  };
})((window.wamsim = window.wamsim || {}));
