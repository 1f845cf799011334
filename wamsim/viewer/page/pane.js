// One episode of several: its videos, how it ended, its curves.
(function (wamsim) {
  "use strict";
  const { el, fill, format, marks, route } = wamsim;

  const line = new wamsim.Line(4);

  /**
   * Make a pane.
   *
   * @param {object} doc An episode document.
   * @param {{series: number, cameras: string[], last: number, seeds: boolean,
   *   single: boolean, onSeek: function(number), onClose: (function()|null)}} about series: its colour; last:
   *   the longest episode's last step; seeds: whether its start is the others' own; single: nothing
   *   stands beside it.
   */
  wamsim.pane = function (doc, about) {
    const videos = doc.cameras
      .filter((camera) => about.cameras.includes(camera.name))
      .map((camera) => figure(doc, camera));
    const verdict = el("span.verdict");
    const place = el("span.muted.pane-step");
    const box = el("div.pane-curves");
    const root = el(
      "article.pane.panel",
      { "aria-label": `${doc.run.policy}, run ${doc.run.name}`, data: { series: about.series } },
      el(
        "header.pane-head",
        null,
        el("span.swatch", {
          "aria-hidden": "true",
          style: { background: `var(--series-${about.series})` },
        }),
        el(
          "div.pane-names",
          null,
          el("a.row-link.cut", {
            href: route.href(["run", doc.run.id]),
            text: doc.run.policy,
            title: doc.run.policy,
          }),
          el("span.sub.cut", {
            text: `${doc.run.name} · seed ${doc.run.seed}`,
            title: doc.run.name,
          }),
        ),
        el("span.push"),
        verdict,
        doc.imagination.length
          ? el("a.button.quiet", {
              href: route.href(["imagination", doc.run.id, doc.suite, doc.task, doc.trial]),
              text: "Imagined",
              title: "Imagined beside real",
            })
          : null,
        about.onClose
          ? el("button.button.quiet.square", {
              type: "button",
              text: "✕",
              "aria-label": `take ${doc.run.name} out`,
              on: { click: about.onClose },
            })
          : null,
      ),
      about.seeds
        ? null
        : el("p.warn.pane-note", {
            text: "Another seed or suite version than the first: not the same start, so not a pair.",
          }),
      doc.stand_in ? el("div.pane-note", null, marks.standIn()) : null,
      videos.length
        ? el(
            "div.videos",
            { data: { count: videos.length } },
            videos.map((v) => v.root),
          )
        : el("p.muted.pane-note", {
            text: doc.video_message || "There is no video of this episode.",
          }),
      el(
        "div.pane-foot",
        null,
        place,
        doc.reason ? el("span.muted.cut", { text: doc.reason, title: doc.reason }) : null,
      ),
      box,
    );
    const curves = wamsim.curves(box, doc, about.last, about.onSeek, about.single);

    function step(t) {
      const end = doc.frames ? doc.frames - 1 : doc.steps;
      const won = format.known(doc.success_step) && t >= doc.success_step;
      root.classList.toggle("won", won);
      root.classList.toggle("over", t >= end && doc.outcome !== "success");
      place.textContent = `step ${Math.min(t, end)} of ${doc.steps}${t > end ? ", ended" : ""}`;
      const key = won ? "won" : t >= end ? "over" : "running";
      if (verdict.dataset.key !== key) {
        verdict.dataset.key = key;
        fill(verdict, badge(key));
      }
      curves.cursor(t);
    }

    function badge(key) {
      if (doc.outcome === "success") {
        const text = `success at ${doc.success_step}`;
        return key === "won" ? marks.outcome("success", text) : el("span.muted", { text });
      }
      return key === "over"
        ? marks.outcome(doc.outcome, `${doc.outcome} at ${doc.steps}`)
        : el("span.muted", { text: doc.outcome });
    }

    return {
      root,
      step,
      tracks: videos.map((v) => ({ video: v.video, frames: doc.frames })),
      remove() {
        for (const { video } of videos) line.drop(video);
        curves.remove();
      },
    };
  };

  function figure(doc, camera) {
    const cover = el("div.cover", { text: "drawing …" });
    const video = el("video", {
      muted: true,
      playsinline: "",
      preload: "auto",
      disablepictureinpicture: "",
      width: camera.width,
      height: camera.height,
      "aria-label": `${doc.run.policy}, camera ${format.words(camera.name)}`,
      tabindex: "-1",
    });
    video.addEventListener("loadeddata", () => (cover.hidden = true));
    video.addEventListener("waiting", () => video.classList.add("waiting"));
    video.addEventListener("canplay", () => video.classList.remove("waiting"));
    line.add(video, camera.url, true);
    video.addEventListener("error", async () => {
      if (!video.getAttribute("src")) return;
      cover.hidden = false;
      cover.textContent = await wamsim.data.why(camera.url);
    });
    const root = el(
      "figure.video",
      null,
      el("div.frame", null, video, cover),
      el("figcaption", { text: format.words(camera.name) }),
    );
    return { root, video };
  }
})((window.wamsim = window.wamsim || {}));
