// Documents, in both worlds: a server gives JSON, a report's folder gives scripts, because
// pages from disk may neither fetch nor import modules.
(function (wamsim) {
  "use strict";

  const config = window.wamsimConfig || { mode: "report", poll_s: 2, wamsim: "" };
  const served = config.mode === "served";
  const POLL_MS = 1000 * (config.poll_s || 2);
  const LOOK_AROUND_MS = 10000; // finished lists are asked too: a new run may have begun
  const entries = new Map(); // name -> {doc, message, watchers, timer, busy}
  const statusListeners = [];
  let lost = false;

  function entry(name) {
    if (!entries.has(name)) {
      entries.set(name, { doc: null, message: null, watchers: new Set(), timer: 0, busy: null });
    }
    return entries.get(name);
  }

  /**
   * Follow a document.
   *
   * @param {string} name Its name, e.g. "run/oracle".
   * @param {function(object|null, string|null)} listener Called with the document, or with null
   *   and a sentence that says why there is none; again whenever it changes.
   * @returns {function()} Stops following.
   */
  function watch(name, listener) {
    const at = entry(name);
    at.watchers.add(listener);
    if (at.doc) listener(at.doc, null);
    load(name);
    return () => {
      at.watchers.delete(listener);
      if (!at.watchers.size) clearTimeout(at.timer);
      status();
    };
  }

  /** Give a document once: a promise of [document or null, sentence or null]. */
  async function get(name) {
    const at = entry(name);
    if (!at.doc || at.doc.live) await load(name);
    return [at.doc, at.doc ? null : at.message];
  }

  function load(name) {
    const at = entry(name);
    if (!at.busy) {
      at.busy = (served ? fetched(name) : scripted(name))
        .then(([doc, message]) => arrived(name, doc, message))
        .finally(() => {
          at.busy = null;
          again(name);
        });
    }
    return at.busy;
  }

  function arrived(name, doc, message) {
    const at = entry(name);
    const same = doc ? at.doc && at.doc.tag === doc.tag : !at.doc && at.message === message;
    if (doc || !lost) at.doc = doc; // a silent server takes nothing from the reader
    at.message = message;
    status();
    if (same) return;
    for (const listener of [...at.watchers]) listener(at.doc, at.doc ? null : message);
  }

  // A pointer that rests on a link to an episode will likely click it.
  const REST_MS = 60;
  let resting = 0;
  function soon(event) {
    const link = event.target.closest?.("a[data-soon]");
    clearTimeout(resting);
    if (link) {
      resting = setTimeout(
        () => fetch(`data/${link.dataset.soon}.json?soon`).catch(() => null),
        REST_MS,
      );
    }
  }
  if (served) {
    document.addEventListener("pointerover", soon);
    document.addEventListener("focusin", soon);
  }

  async function fetched(name) {
    try {
      // "no-cache": the browser sends the version it has, and 304 answers from its cache.
      const answer = await fetch(`data/${name}.json`, { cache: "no-cache" });
      lost = false;
      if (answer.ok) return [await answer.json(), null];
      return [null, await sentence(answer)];
    } catch {
      lost = true;
      return [null, "The server does not answer. Start `wamsim view` again, then reload."];
    }
  }

  async function sentence(answer) {
    try {
      return (await answer.json()).message;
    } catch {
      return `The server answered ${answer.status}. Look at the terminal of \`wamsim view\`.`;
    }
  }

  window.wamsimData = (name, doc) => {
    entry(name).scripted = doc;
  };

  function scripted(name) {
    return new Promise((done) => {
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => {
        script.remove();
        done([entry(name).scripted || null, null]);
      };
      script.onerror = () => {
        script.remove();
        done([
          null,
          "This report does not hold that. Make it with `wamsim report --episodes all`.",
        ]);
      };
      document.head.append(script);
    });
  }

  function again(name) {
    const at = entry(name);
    clearTimeout(at.timer);
    if (!served || !at.watchers.size || document.hidden) return;
    const live = lost || (at.doc ? at.doc.live : true);
    if (live || name === "runs" || name === "leaderboard") {
      at.timer = setTimeout(() => load(name), live ? POLL_MS : LOOK_AROUND_MS);
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    for (const [name, at] of entries) if (at.watchers.size) load(name);
  });

  function status() {
    const followed = [...entries.values()].filter((at) => at.watchers.size && at.doc);
    const live = followed.some((at) => at.doc.live);
    const text = !served ? "report" : lost ? "lost" : live ? "live" : "still";
    for (const listener of statusListeners) listener(text);
  }

  /** Say why a picture or video did not come: a promise of a sentence. */
  async function why(url) {
    const fallback = "It could not be loaded.";
    if (!served) return fallback;
    try {
      const answer = await fetch(url, { headers: { Range: "bytes=0-0" } });
      return answer.ok ? fallback : await sentence(answer);
    } catch {
      return "The server does not answer. Start `wamsim view` again, then reload.";
    }
  }

  wamsim.config = config;
  wamsim.data = { watch, get, why, served, onStatus: (listener) => statusListeners.push(listener) };
})((window.wamsim = window.wamsim || {}));
