// What a policy imagined, beside what then came, query by query.
(function (wamsim) {
  "use strict";
  const { el, fill, format, marks, route } = wamsim;

  wamsim.views.imagination = function (root) {
    root.classList.add("long");
    let params = new URLSearchParams();
    let at = null; // {run, suite, task, trial}
    let doc = null;
    let found = null; // of a retrieval
    let stops = [];
    let turn = 0;
    let drawn = null;

    const title = el("h1");
    const verdict = el("span");
    const runBox = wamsim.select("Run", [], "", (id) =>
      route.go(route.href(["imagination", id]), { push: true }),
    );
    const chooser = wamsim.chooser((suite, task, trial) =>
      route.go(
        route.href(["imagination", at.run, suite, task, trial], { who: params.get("who") }),
        { push: true },
      ),
    );
    const imaginers = el("span");
    const watchLink = el("a.button", { text: "Watch the episode" });
    const facts = el("dl.facts");
    const note = el("p.muted");
    const strip = wamsim.strip(pick);
    const place = el("h2");
    const pager = el(
      "span.joined",
      null,
      arrow(-1, "previous query", "‹"),
      arrow(1, "next query", "›"),
    );
    const watchHere = el("a", { text: "watch from here" });
    const pictures = el("div.pictures");
    const figures = wamsim.similarity(pick);
    const look = el(
      "div.look",
      null,
      el(
        "section.panel.query-panel",
        { "aria-label": "One query" },
        el("div.heading", null, pager, place, watchHere),
        note,
        pictures,
      ),
      figures.root,
    );
    const body = [
      el("div.heading", null, title, verdict),
      el("div.tools", null, runBox, chooser.root, imaginers, el("span.push"), watchLink),
      facts,
      el("section.panel.strip-panel", { "aria-label": "The episode" }, stripLegend(), strip.root),
      look,
    ];

    function stripLegend() {
      return el(
        "div.strip-legend",
        null,
        el("span.strong", { text: "The episode, query by query" }),
        el("span.key.up", { text: "imagination nearer to what came than a still picture" }),
        el("span.key.down", { text: "farther" }),
      );
    }

    function arrow(by, label, text) {
      return el("button.button.square", {
        type: "button",
        text,
        title: label,
        "aria-label": label,
        on: { click: () => pick(query() + by) },
      });
    }

    const who = () =>
      doc.imagination[
        Math.min(doc.imagination.length - 1, Math.max(0, route.number(params, "who", 0)))
      ];
    const query = () =>
      Math.max(0, Math.min(who().steps.length - 1, Math.round(route.number(params, "q", 0))));

    function pick(q) {
      if (!doc || !doc.imagination.length) return;
      const next = Math.max(0, Math.min(who().steps.length - 1, q));
      route.change({ q: next || null });
    }

    async function choose(run) {
      const mine = ++turn;
      at = doc = null;
      fill(root, wamsim.notice("Looking for an episode …"));
      const [runs, message] = await wamsim.usableRuns(
        (r) => r.imagines || r.skill || (r.skills && r.skills.length),
      );
      if (mine !== turn) return;
      const id = run || (runs[0] && runs[0].id);
      if (!id) {
        return wamsim.sentencePage(
          root,
          "No run has recorded imagination",
          message || "Make one: `wamsim eval --policy fastwam --suite tabletop_object --imagine`",
        );
      }
      const [list, why] = await wamsim.data.get(`run/${id}`);
      if (mine !== turn) return;
      const shipped = list ? list.episodes.filter((e) => e.doc) : [];
      const first = shipped.find((e) => format.known(e.error)) || shipped[0];
      if (!first)
        return wamsim.sentencePage(
          root,
          "No episode to show",
          why ||
            "This run has no finished episode, or the report ships none of it (--episodes all).",
        );
      route.go(route.href(["imagination", id, first.suite, first.task, first.trial]));
    }

    function open() {
      const mine = ++turn;
      for (const stop of stops) stop();
      stops = [];
      doc = found = drawn = null;
      const tail = `${at.suite}/${at.task}/${at.trial}`;
      stops.push(
        wamsim.data.watch("runs", (runs) => {
          if (mine !== turn || !runs) return;
          const some = runs.runs.filter(
            (r) => r.id === at.run || (r.total && (r.imagines || r.skill)),
          );
          wamsim.setOptions(runBox.querySelector("select"), wamsim.runOptions(some), at.run);
        }),
        wamsim.data.watch(`run/${at.run}`, (run) => {
          if (mine === turn && run && run.episodes)
            chooser.set(
              run.episodes.filter((e) => e.doc),
              at,
            );
        }),
        wamsim.data.watch(`episode/${at.run}/${tail}`, (next, message) => {
          if (mine !== turn) return;
          doc = next;
          if (!doc) return wamsim.sentencePage(root, "This episode cannot be shown", message);
          drawn = null;
          draw();
        }),
      );
    }

    function draw() {
      title.textContent = doc.instruction;
      fill(verdict, marks.outcome(doc.outcome, `${doc.outcome} after ${doc.steps} steps`));
      watchLink.setAttribute(
        "href",
        route.href(["side", doc.suite, doc.task, doc.trial], { runs: at.run }),
      );
      if (!doc.imagination.length) {
        fill(
          root,
          body.slice(0, 2),
          wamsim.notice(
            "Nothing was imagined in this episode",
            "Its policy imagines nothing, or the run was made without --imagine. Run it again with `wamsim eval ... --imagine`.",
          ),
        );
        return;
      }
      const one = who();
      if (drawn !== one) {
        drawn = one;
        found = null;
        fill(root, body);
        fill(pictures); // those of another episode must not stand here while these load
        look.classList.toggle("narrow", wamsim.sheets.isNarrow(one));
        drawFacts(one);
        strip.draw(one, one.summary.broke);
        retrieve(one, turn);
      }
      fill(
        imaginers,
        doc.imagination.length > 1
          ? wamsim.toggles(
              "Imaginer",
              doc.imagination.map((x, i) => [String(i), x.imaginer]),
              [String(one.index)],
              ([i]) => route.change({ who: i === "0" ? null : i, q: null }),
            )
          : null,
      );
      drawQuery(one);
    }

    async function retrieve(one, mine) {
      const name = one.pictures && one.pictures.retrieval;
      if (!name) return;
      const [answer] = await wamsim.data.get(name);
      if (mine !== turn || drawn !== one || !answer) return;
      found = answer;
      drawQuery(one);
    }

    function drawFacts(one) {
      const s = one.summary;
      const fact = (name, value, tip) =>
        el("div", { title: tip }, el("dt", { text: name }), el("dd", null, value));
      fill(
        facts,
        fact("Imaginer", [
          one.imaginer,
          one.world_model ? el("span.tag", { text: "world model" }) : null,
        ]),
        fact(
          "Skill",
          el(s.skill > 0 ? "strong" : "span", { text: format.number(s.skill) }),
          "1 - error / error of 'nothing moves'",
        ),
        fact(
          "Similarity",
          `${format.fixed(s.similarity, 3)} against ${format.fixed(s.still, 3)} for nothing moves`,
          "Mean cosine to the real latent",
        ),
        fact(
          "Error",
          `${format.number(s.error)} against ${format.number(s.still_error)}`,
          "Normalised squared error",
        ),
        fact(
          "Queries",
          `${one.steps.length}, one every ${format.plural(one.execute, "step")}`,
          "Horizons beyond the executed steps are not compared",
        ),
        fact("Pictures", kind(one)),
      );
    }

    function kind(one) {
      if (!one.pictures) return el("span.muted", { text: "none" });
      return one.pictures.kind === "retrieval"
        ? el("span.tag.warn", { text: "retrieval: nearest real frame", title: one.pictures.note })
        : el("span.tag.accent", { text: "decoded", title: one.pictures.note });
    }

    function drawQuery(one) {
      const q = query();
      strip.mark(q);
      place.textContent = `Query ${q + 1} of ${one.steps.length}, at step ${one.steps[q]}`;
      const [back, forth] = pager.children;
      back.disabled = q === 0;
      forth.disabled = q === one.steps.length - 1;
      watchHere.setAttribute(
        "href",
        route.href(["side", doc.suite, doc.task, doc.trial], { runs: at.run, t: one.steps[q] }),
      );
      note.textContent = one.fault || (one.pictures && one.pictures.note) || "";
      if (one.pictures) wamsim.sheets.query(pictures, one, q, doc.fps || 20, found);
      else
        fill(
          pictures,
          el("p.muted", {
            text: "There are no pictures: the model draws none, and no real frame could be retrieved.",
          }),
        );
      figures.draw(one, q);
    }

    function onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || wamsim.typing(event)) return;
      if (document.querySelector("dialog[open]") || !doc || !doc.imagination.length) return;
      const far = event.shiftKey ? 10 : 1;
      const moves = {
        ArrowLeft: () => pick(query() - far),
        ArrowRight: () => pick(query() + far),
        Home: () => pick(0),
        End: () => pick(who().steps.length - 1),
      };
      if (!moves[event.key]) return;
      event.preventDefault();
      moves[event.key]();
    }
    document.addEventListener("keydown", onKey);

    return {
      update({ path, params: next }) {
        params = next;
        const [, run, suite, task, trial] = path;
        if (trial === undefined || !Number.isInteger(Number(trial))) return void choose(run);
        const place = { run, suite, task, trial: Number(trial) };
        if (JSON.stringify(place) !== JSON.stringify(at) || !stops.length) {
          at = place;
          open();
        } else if (doc) draw();
      },
      remove() {
        turn++;
        for (const stop of stops) stop();
        document.removeEventListener("keydown", onKey);
        figures.remove();
      },
    };
  };
})((window.wamsim = window.wamsim || {}));
