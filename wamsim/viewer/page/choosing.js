// Choosing a run, a task and a trial, as several pages do.
(function (wamsim) {
  "use strict";
  const { el, fill, format, route } = wamsim;

  /**
   * Two boxes and two arrows: task, and its trials.
   *
   * @param {function(string, string, number)} onPick Called with suite, task, trial.
   * @returns {{root: Element, set: function(object[], object)}} set: the episodes to choose
   *   from (suite, task, trial, outcome) and the present one.
   */
  wamsim.chooser = function (onPick) {
    let episodes = [];
    let here = null;
    const place = (e) => `${e.suite}/${e.task}`;
    const same = (e) => here && place(e) === place(here);

    const task = wamsim.select("Task", [], "", (value) => {
      const found = episodes.filter((e) => place(e) === value);
      pick(found.find((e) => here && e.trial === here.trial) || found[0]);
    });
    const trial = wamsim.select("Trial", [], "", (value) => {
      pick(episodes.find((e) => same(e) && String(e.trial) === value));
    });
    const step = (by, label, text) =>
      el("button.button.square", {
        type: "button",
        text,
        "aria-label": label,
        title: label,
        on: { click: () => move(by) },
      });
    const back = step(-1, "previous trial", "‹");
    const forth = step(1, "next trial", "›");

    function pick(e) {
      if (e) onPick(e.suite, e.task, e.trial);
    }

    // Past a task's last trial comes the next task's first.
    function move(by) {
      const at = episodes.findIndex((e) => same(e) && e.trial === here.trial);
      pick(episodes[at + by]);
    }

    function set(next, present) {
      episodes = next;
      here = present;
      const tasks = new Map();
      const several = new Set(episodes.map((e) => e.suite)).size > 1;
      for (const e of episodes) {
        const name = format.words(e.task);
        tasks.set(place(e), several ? `${e.suite}: ${name}` : name);
      }
      wamsim.setOptions(task.querySelector("select"), [...tasks], place(here));
      wamsim.setOptions(
        trial.querySelector("select"),
        episodes
          .filter(same)
          .map((e) => [String(e.trial), `${e.trial}  ${format.outcome(e.outcome).mark}`]),
        String(here.trial),
      );
      const at = episodes.findIndex((e) => same(e) && e.trial === here.trial);
      back.disabled = at <= 0;
      forth.disabled = at < 0 || at >= episodes.length - 1;
    }

    return {
      root: el("div.chooser", null, task, el("span.joined", null, trial, back, forth)),
      set,
    };
  };

  /** A box of runs: [value, text] from the document `runs`. */
  wamsim.runOptions = (runs) =>
    runs.map((run) => [run.id, `${run.label || run.name} · ${run.name}`]);

  /** Runs that have something to show, newest first: a promise of [runs, sentence or null]. */
  wamsim.usableRuns = async function (fits) {
    const [doc, message] = await wamsim.data.get("runs");
    if (!doc) return [[], message];
    const runs = doc.runs.filter(
      (run) => wamsim.readable(run) && (run.total.scored || run.total.errors),
    );
    const found = fits ? runs.filter(fits) : runs;
    return [found, found.length ? null : doc.empty || null];
  };

  /** A whole page that is a sentence. */
  wamsim.sentencePage = function (root, title, sentence) {
    fill(
      root,
      wamsim.notice(
        title,
        sentence,
        el("a.button", { href: route.href(["runs"]), text: "All runs" }),
      ),
    );
  };
})((window.wamsim = window.wamsim || {}));
