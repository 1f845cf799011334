// Videos are drawn while they are sent, and each holds one of the browser's six connections
// meanwhile: so they stand in line, and documents always find a connection free.
(function (wamsim) {
  "use strict";

  const NEARLY_S = 0.06; // of a video's end may be missing: a frame's rounding

  class Line {
    /** @param {number} most How many may load at a time. */
    constructor(most) {
      this.most = most;
      this.waiting = [];
      this.loading = new Set();
    }

    /**
     * Load a video when its turn comes.
     *
     * @param {HTMLVideoElement} video
     * @param {string} url
     * @param {boolean} [whole] Its turn ends when all of it is there, not when it can play.
     */
    add(video, url, whole) {
      if (this.loading.has(video) || this.waiting.some((w) => w.video === video)) return;
      this.waiting.push({ video, url, whole });
      this._next();
    }

    /** Give up a video that still waits; one that loads goes on. */
    skip(video) {
      this.waiting = this.waiting.filter((w) => w.video !== video);
    }

    /** Take a video off the page: it frees its connection. */
    drop(video) {
      this.skip(video);
      video.pause();
      video.removeAttribute("src");
      video.load();
      this._done(video);
    }

    _next() {
      while (this.waiting.length && this.loading.size < this.most) {
        const { video, url, whole } = this.waiting.shift();
        this.loading.add(video);
        const done = () => this._done(video);
        video.addEventListener("error", done, { once: true });
        if (whole) {
          video.addEventListener("progress", () => complete(video) && done());
          video.addEventListener("canplaythrough", () => complete(video) && done());
          video.addEventListener("suspend", done); // the browser has enough: it waits by itself
        } else {
          video.addEventListener("canplaythrough", done, { once: true });
        }
        video.src = url;
      }
    }

    _done(video) {
      if (this.loading.delete(video)) this._next();
    }
  }

  function complete({ buffered, duration }) {
    return buffered.length > 0 && buffered.end(buffered.length - 1) > duration - NEARLY_S;
  }

  wamsim.Line = Line;
})((window.wamsim = window.wamsim || {}));
