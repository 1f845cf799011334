// The scrubber under all panes, and its keys.
(function (wamsim) {
  "use strict";
  const { el, fill } = wamsim;

  const SPEEDS = [0.25, 0.5, 1, 2, 4];
  const FAR = 10; // steps of Shift + arrow

  /**
   * Make the transport of a player.
   *
   * @param {function(number)} onSpeed Called with a new speed.
   */
  wamsim.transport = function (player, onSpeed) {
    const play = el("button.button.primary.square.play", {
      type: "button",
      on: { click: toggle },
    });
    const range = el("input.scrub", {
      type: "range",
      min: 0,
      max: 0,
      step: 1,
      value: 0,
      "aria-label": "Step",
      on: { input: () => player.seek(Number(range.value)) },
    });
    const ticks = el("div.ticks", { "aria-hidden": "true" });
    const reading = el("span.reading-step");
    const speeds = el("span");
    const root = el(
      "div.transport",
      { role: "group", "aria-label": "Playback" },
      play,
      el("div.track", null, ticks, range),
      reading,
      speeds,
    );

    function toggle() {
      if (player.playing) player.pause();
      else player.play();
    }

    function step(t) {
      range.value = String(t);
      const s = (t / player.fps).toFixed(2);
      reading.textContent = `${t} / ${player.last} · ${s} s`;
      range.setAttribute("aria-valuetext", `step ${t} of ${player.last}`);
      const part = player.last ? t / player.last : 0;
      range.style.setProperty("--part", `${100 * part}%`);
    }

    function state() {
      play.textContent = player.playing ? "❚❚" : "▶";
      play.setAttribute("aria-label", player.playing ? "pause" : "play");
      root.classList.toggle("waiting", player.playing && player.waiting);
      const focused = speeds.contains(document.activeElement);
      fill(
        speeds,
        wamsim.toggles(
          "Speed",
          SPEEDS.map((s) => [s, `${s}×`]),
          [player.speed],
          ([s]) => onSpeed(s),
        ),
      );
      if (focused) speeds.querySelector('[aria-pressed="true"]')?.focus();
    }

    /** Show where episodes end and where they succeed. */
    function mark(episodes) {
      range.max = String(player.last);
      fill(
        ticks,
        episodes.map(({ doc, series }) => {
          const won = doc.success_step;
          const at = won ?? doc.steps;
          return el("span", {
            title: won === null ? `ends at ${doc.steps}` : `success at ${won}`,
            text: won === null ? "▏" : "✓",
            style: {
              left: `${(100 * at) / Math.max(1, player.last)}%`,
              color: `var(--series-${series})`,
            },
          });
        }),
      );
      state();
    }

    function onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || wamsim.typing(event)) return;
      if (document.querySelector("dialog[open]")) return;
      const at = player.step();
      const by = event.shiftKey ? FAR : 1;
      const speed = SPEEDS.indexOf(player.speed);
      const onControl = event.target.closest("button, a, input[type='checkbox']");
      const actions = {
        " ": onControl ? null : toggle,
        ArrowLeft: () => player.seek(at - by),
        ArrowRight: () => player.seek(at + by),
        Home: () => player.seek(0),
        End: () => player.seek(player.last),
        "[": () => speed > 0 && onSpeed(SPEEDS[speed - 1]),
        "]": () => speed < SPEEDS.length - 1 && onSpeed(SPEEDS[speed + 1]),
      };
      const action = actions[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    }
    document.addEventListener("keydown", onKey);

    return {
      root,
      step,
      state,
      mark,
      remove: () => document.removeEventListener("keydown", onKey),
    };
  };

  wamsim.SPEEDS = SPEEDS;
})((window.wamsim = window.wamsim || {}));
