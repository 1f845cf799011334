// Up to four episodes of the same key, playing in step.
(function (wamsim) {
  "use strict";
  const { el, fill, format, marks, route } = wamsim;

  const MOST = 4;
  const ADDRESS_MS = 400; // browsers refuse more than about 100 address changes in 30 s

  wamsim.views.side = function (root) {
    root.classList.add("long");
    let params = new URLSearchParams();
    let key = null; // {suite, task, trial}
    let runs = [];
    let docs = {}; // run -> episode document
    let peers = null;
    let stops = [];
    let drawn = null; // what the panes show, so that they are made anew only when it changes
    let panes = [];
    let turn = 0; // an answer that comes after a later question is dropped
    let addressTimer = 0;
    let written = -1; // the step that the address names

    const title = el("h1");
    const about = el("span.muted");
    const chooser = wamsim.chooser((suite, task, trial) =>
      route.go(
        route.href(["side", suite, task, trial], { ...Object.fromEntries(params), t: null }),
        { push: true },
      ),
    );
    const cameras = el("span");
    const next = el("button.button", {
      type: "button",
      text: "Next difference",
      title: "To the next episode in which the first two end differently",
      on: { click: nextDifference },
    });
    const chips = el("div.chips", { role: "group", "aria-label": "Episodes beside each other" });
    const pairs = el("p.muted.pairs-line");
    const grid = el("div.panes");
    const player = new wamsim.Player({ onStep, onState });
    const transport = wamsim.transport(player, (speed) =>
      route.change({ speed: speed === 1 ? null : speed }),
    );

    const body = [
      el("div.heading", null, title, about),
      el("div.tools", null, chooser.root, cameras, el("span.push"), next),
      chips,
      pairs,
      grid,
      transport.root,
    ];

    function onStep(t) {
      transport.step(t);
      for (const pane of panes) pane.step(t);
      if (!addressTimer) addressTimer = setTimeout(writeStep, ADDRESS_MS);
    }

    function writeStep() {
      addressTimer = 0;
      if (key && route.read().path[0] === "side") {
        written = player.step();
        params.set("t", written);
        route.change({ t: written || null }, { quiet: true });
      }
    }

    function onState() {
      transport.state();
    }

    // An address without an episode gets one: where two runs differ, else the first.
    async function choose() {
      const mine = ++turn;
      fill(root, wamsim.notice("Looking for an episode …"));
      let ids = route.list(params, "runs");
      if (!ids.length && key) {
        const [doc] = await wamsim.data.get(`peers/${name(key)}`);
        if (mine !== turn) return;
        const some = doc ? doc.episodes.filter((e) => e.doc).slice(0, 1) : [];
        if (some.length) {
          const rest = { ...Object.fromEntries(params), runs: some.map((e) => e.run) };
          return route.go(route.href(["side", key.suite, key.task, key.trial], rest));
        }
      }
      if (!ids.length) {
        const [found, message] = await wamsim.usableRuns();
        if (mine !== turn) return;
        if (!found.length)
          return wamsim.sentencePage(
            root,
            "No episodes yet",
            message || "Make a run first: `wamsim eval --policy oracle --suite tabletop_object`",
          );
        ids = [found[0].id];
      }
      const [run, message] = await wamsim.data.get(`run/${ids[0]}`);
      const [both] = ids.length > 1 ? await wamsim.data.get(`compare/${ids[0]}/${ids[1]}`) : [null];
      if (mine !== turn) return;
      if (!run) return wamsim.sentencePage(root, "This run cannot be shown", message);
      const shipped = new Set(run.episodes.filter((e) => e.doc).map(name));
      const shared = both && both.episodes ? both.episodes.filter((e) => shipped.has(name(e))) : [];
      const first = shared.find((e) => e.a !== e.b) || shared[0] || run.episodes.find((e) => e.doc);
      if (!first)
        return wamsim.sentencePage(
          root,
          "No episode to show",
          "This run has no finished episode, or the report ships none of it (--episodes all).",
        );
      const rest = { ...Object.fromEntries(params), runs: ids };
      route.go(route.href(["side", first.suite, first.task, first.trial], rest));
    }

    const name = (e) => `${e.suite}/${e.task}/${e.trial}`;

    async function open() {
      const mine = ++turn;
      for (const stop of stops) stop();
      stops = [];
      docs = {};
      peers = null;
      drawn = null;
      fill(root, body);
      const tail = name(key);
      stops.push(
        wamsim.data.watch(`peers/${tail}`, (doc) => {
          if (mine !== turn) return;
          peers = doc;
          drawChips();
        }),
      );
      for (const id of runs) {
        stops.push(
          wamsim.data.watch(`episode/${id}/${tail}`, (doc, message) => {
            if (mine !== turn) return;
            docs[id] = doc || { missing: message };
            drawPanes();
          }),
        );
      }
      if (!runs.length) return choose();
      stops.push(
        wamsim.data.watch(`run/${runs[0]}`, (doc) => {
          if (mine === turn && doc && doc.episodes)
            chooser.set(
              doc.episodes.filter((e) => e.doc),
              key,
            );
        }),
      );
      drawPairs(mine);
    }

    function drawChips() {
      const list = peers ? peers.episodes : [];
      fill(
        chips,
        list.map((peer) => {
          const on = runs.includes(peer.run);
          const series = runs.indexOf(peer.run);
          return el(
            "button.chip",
            {
              type: "button",
              "aria-pressed": String(on),
              disabled: !peer.doc || (!on && runs.length >= MOST) || (on && runs.length === 1),
              title: on ? "Take it out" : "Put it beside",
              on: { click: () => toggle(peer.run) },
            },
            el("span.swatch", {
              "aria-hidden": "true",
              style: { background: on ? `var(--series-${series})` : "transparent" },
            }),
            el("span", { text: peer.policy }),
            el("span.muted", { text: peer.name }),
            marks.outcome(peer.outcome, " "),
          );
        }),
      );
      chips.hidden = list.length < 2;
      drawPanes();
    }

    function toggle(id) {
      const nextRuns = runs.includes(id) ? runs.filter((r) => r !== id) : [...runs, id];
      route.change({ runs: nextRuns }, { push: true });
    }

    async function drawPairs(mine) {
      pairs.hidden = next.hidden = runs.length < 2;
      fill(pairs);
      if (runs.length < 2) return;
      const [doc] = await wamsim.data.get(`compare/${runs[0]}/${runs[1]}`);
      if (mine !== turn || !doc) return;
      const row =
        doc.suites &&
        doc.suites.find((s) => s.suite === key.suite || s.suite.startsWith(`${key.suite}-v`));
      next.disabled = !(doc.episodes || []).some((e) => e.a !== e.b);
      pairs.textContent = row
        ? `First minus second over ${format.plural(row.n, "shared episode")} of ${row.suite}: ` +
          [
            `${format.points(row.difference)} points`,
            format.interval(format.known(row.low) ? [row.low, row.high] : null),
            `p ${row.p !== null && row.p < 0.001 ? "" : "= "}${format.pValue(row.p)}`,
          ]
            .filter(Boolean)
            .join(", ")
        : doc.message || "";
    }

    async function nextDifference() {
      const [doc] = await wamsim.data.get(`compare/${runs[0]}/${runs[1]}`);
      const list = (doc && doc.episodes) || [];
      const at = list.findIndex((e) => name(e) === name(key));
      const found = [...list.slice(at + 1), ...list.slice(0, at + 1)].find((e) => e.a !== e.b);
      if (found)
        route.go(
          route.href(["side", found.suite, found.task, found.trial], {
            ...Object.fromEntries(params),
            t: null,
          }),
          { push: true },
        );
    }

    function drawPanes() {
      const ready = runs.map((id) => docs[id]);
      if (ready.some((doc) => !doc)) return;
      const good = ready.filter((doc) => !doc.missing);
      const wanted = JSON.stringify([
        name(key),
        runs,
        ready.map((d) => d.tag || d.missing),
        params.get("cams"),
        peers !== null,
      ]);
      if (wanted === drawn) return;
      drawn = wanted;
      const first = good[0];
      title.textContent = first ? first.instruction : format.words(key.task);
      about.textContent = `${key.suite}, trial ${key.trial}${first && first.limit ? `, limit ${first.limit} steps` : ""}`;
      const shown = drawCameras(good);
      const wasPlaying = player.playing;
      const at = panes.length ? player.step() : route.number(params, "t", 0);
      clear();
      const last = Math.max(1, ...good.map((doc) => (doc.frames ? doc.frames - 1 : doc.steps)));
      const shownDocs = [];
      fill(
        grid,
        ready.map((doc, series) => {
          if (doc.missing) return missing(runs[series], doc.missing);
          const pane = wamsim.pane(doc, {
            series,
            last,
            cameras: shown,
            single: runs.length === 1,
            seeds:
              doc === first ||
              (doc.run.seed === first.run.seed && doc.suite_version === first.suite_version),
            onSeek: (step) => player.seek(step),
            onClose: runs.length > 1 ? () => toggle(runs[series]) : null,
          });
          panes.push(pane);
          shownDocs.push({ doc, series });
          return pane.root;
        }),
      );
      grid.dataset.count = String(runs.length);
      player.speed = speed();
      player.use(
        panes.flatMap((pane) => pane.tracks),
        (first && first.fps) || 20,
        last,
      );
      transport.mark(shownDocs);
      player.seek(at);
      transport.step(player.step());
      for (const pane of panes) pane.step(player.step());
      if (wasPlaying) player.play();
    }

    function drawCameras(good) {
      const known = [];
      const standard = [];
      for (const camera of good.flatMap((doc) => doc.cameras)) {
        if (!known.includes(camera.name)) known.push(camera.name);
        if (camera.standard && !standard.includes(camera.name)) standard.push(camera.name);
      }
      const asked = route.list(params, "cams").filter((c) => known.includes(c));
      // Few panes have room for all standard cameras; more show the first.
      const usual = runs.length === 1 ? standard : standard.slice(0, 1);
      const shown = asked.length ? asked : usual.length ? usual : known.slice(0, 1);
      fill(
        cameras,
        known.length > 1
          ? wamsim.toggles(
              "Cameras",
              known.map((c) => [c, format.words(c)]),
              shown,
              (cams) => route.change({ cams }),
              true,
            )
          : null,
      );
      return shown;
    }

    function missing(id, sentence) {
      return el(
        "article.pane.panel",
        null,
        wamsim.notice(
          `${id} has no such episode`,
          sentence,
          el("button.button", {
            type: "button",
            text: "Take it out",
            on: { click: () => toggle(id) },
          }),
        ),
      );
    }

    function speed() {
      const asked = route.number(params, "speed", 1);
      return wamsim.SPEEDS.includes(asked) ? asked : 1;
    }

    function clear() {
      player.release();
      for (const pane of panes) pane.remove();
      panes = [];
    }

    return {
      update({ path, params: now }) {
        params = now;
        if (written < 0) written = route.number(params, "t", 0);
        const trial = Number(path[3]);
        const nextKey =
          path.length > 3 && Number.isInteger(trial)
            ? { suite: path[1], task: path[2], trial }
            : null;
        const nextRuns = [...new Set(route.list(params, "runs"))].slice(0, MOST);
        if (!nextKey || !nextRuns.length) {
          key = nextKey;
          runs = nextRuns;
          return void choose();
        }
        if (JSON.stringify([nextKey, nextRuns]) !== JSON.stringify([key, runs])) {
          const moved = JSON.stringify(nextKey) !== JSON.stringify(key);
          key = nextKey;
          runs = nextRuns;
          if (moved) {
            player.pause();
            clear();
          }
          return void open();
        }
        if (player.speed !== speed()) player.setSpeed(speed());
        const t = route.number(params, "t", 0);
        if (t !== written) player.seek((written = t)); // somebody changed the address
        drawPanes();
      },
      remove() {
        turn++;
        clearTimeout(addressTimer);
        for (const stop of stops) stop();
        clear();
        transport.remove();
      },
    };
  };
})((window.wamsim = window.wamsim || {}));
