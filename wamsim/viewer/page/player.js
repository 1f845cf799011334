// Several videos on one clock.
//
// The clock is the truth: a step, counted in frames of the control rate. Each video plays by
// itself and is steered towards the clock: a little drift by its rate, more by a seek. While
// a video waits for data the clock waits too, so no video runs ahead of another.
(function (wamsim) {
  "use strict";

  const MIDDLE = 0.5; // of a frame: no rounding shows its neighbour
  const STEER_FRAMES = 0.12; // less is the noise of currentTime
  const SEEK_FRAMES = 1.5; // more than one frame apart is seen: jump
  const MOST_STEER = 0.25; // of the speed
  const CATCH_UP_S = 0.4; // in which steering makes up for a drift
  const SEEK_REST_MS = 250; // a seek needs a moment before it can be judged
  const HAVE_FUTURE_DATA = 3; // HTMLMediaElement.readyState

  class Player {
    /**
     * @param {{onStep: function(number), onState: function()}} listeners onStep: a new step
     *   is shown; onState: playing, waiting or speed changed.
     */
    constructor({ onStep, onState }) {
      this.tracks = [];
      this.fps = 20;
      this.speed = 1;
      this.playing = false;
      this.waiting = false;
      this.last = 0; // the last step of the longest episode
      this._at = MIDDLE; // the clock, in frames, at ...
      this._since = 0; // ... this performance.now(); it stands in the middle of a frame
      this._told = -1;
      this._frame = 0; // the request for the next tick
      this._onStep = onStep;
      this._onState = onState;
      this._tick = this._tick.bind(this);
    }

    /** Take videos: [{video, frames}]; frames: how many the episode has. */
    use(tracks, fps, last) {
      this.fps = fps;
      this.last = last;
      this.tracks = tracks.map(({ video, frames }) => {
        const track = { video, frames, wanted: null, sought: 0 };
        video.addEventListener("seeked", () => this._seekNext(track));
        video.addEventListener("loadedmetadata", () => this._place(track));
        if (video.readyState >= 1) this._place(track);
        return track;
      });
      this._at = Math.min(this._at, last + MIDDLE);
      if (this.playing) this._start();
    }

    /** The clock, in frames: frame t is shown from t to t + 1. */
    now() {
      if (!this.playing || this.waiting) return this._at;
      const passed = ((performance.now() - this._since) / 1000) * this.fps * this.speed;
      return Math.min(this.last + MIDDLE, this._at + passed);
    }

    step() {
      return Math.floor(this.now());
    }

    play() {
      if (this.playing) return;
      if (this.step() >= this.last) this._at = MIDDLE;
      this.playing = this.waiting = true; // the clock stands until all can go
      this._start();
      this._onState();
    }

    pause() {
      if (!this.playing) return;
      this._at = this.step() + MIDDLE;
      this.playing = this.waiting = false;
      for (const track of this.tracks) {
        track.video.pause();
        this._place(track);
      }
      this._tell();
      this._onState();
    }

    seek(step) {
      const next = Math.max(0, Math.min(this.last, Math.round(step)));
      this._set(next + MIDDLE);
      for (const track of this.tracks) this._place(track);
      if (this.playing) this._start();
      this._tell();
    }

    setSpeed(speed) {
      this._set(this.now());
      this.speed = speed;
      for (const track of this.tracks) if (!track.video.paused) track.video.playbackRate = speed;
      this._onState();
    }

    /** Let go of the videos. */
    release() {
      this.playing = this.waiting = false;
      for (const { video } of this.tracks) video.pause();
      this.tracks = [];
    }

    _set(step) {
      this._at = step;
      this._since = performance.now();
    }

    // Its last frame stays. A video that is a little ahead of the clock ends before it.
    _over({ video, frames }) {
      const left = frames - MIDDLE - this.now();
      return left <= 0 || (video.ended && left < this.fps * this.speed * CATCH_UP_S);
    }

    // Everybody waits at the same step until all have data; then all go at once.
    _start() {
      this._at = this.now();
      this.waiting = true;
      for (const { video } of this.tracks) video.playbackRate = 0;
      this._nudge();
      this._again();
    }

    _again() {
      cancelAnimationFrame(this._frame);
      this._frame = requestAnimationFrame(this._tick);
    }

    // A video whose address came late has forgotten that it should play.
    _nudge() {
      for (const track of this.tracks) {
        const { video } = track;
        if (!video.paused || video.error || this._over(track)) continue;
        video.play().catch(() => {}); // `error` or `pause` came between
      }
    }

    _tick() {
      if (!this.playing) return;
      if (this.waiting) this._nudge();
      const stuck = this.tracks.some((track) => !this._over(track) && !this._ready(track));
      if (stuck !== this.waiting) {
        this._set(this.now());
        this.waiting = stuck;
        for (const { video } of this.tracks) video.playbackRate = stuck ? 0 : this.speed;
        this._onState();
      }
      if (!stuck) for (const track of this.tracks) this._steer(track);
      this._tell();
      if (this.now() >= this.last + MIDDLE) this.pause();
      else this._again();
    }

    _ready({ video }) {
      if (video.error) return true; // nobody waits for what will not come
      return video.readyState >= HAVE_FUTURE_DATA && !video.seeking && !video.paused;
    }

    _steer(track) {
      const { video, frames } = track;
      if (video.error) return;
      if (this._over(track)) {
        if (!video.paused) video.pause();
        if (Math.abs(video.currentTime * this.fps - (frames - MIDDLE)) > MIDDLE) this._place(track);
        return;
      }
      const drift = video.currentTime * this.fps - this.now(); // frames ahead
      const rested = performance.now() - track.sought > SEEK_REST_MS;
      if (Math.abs(drift) > SEEK_FRAMES * Math.max(1, this.speed) && rested) {
        track.sought = performance.now();
        video.currentTime = this.now() / this.fps;
        return;
      }
      const wish = -drift / (this.fps * this.speed * CATCH_UP_S);
      const steer = Math.abs(drift) < STEER_FRAMES ? 0 : wish;
      const rate = this.speed * (1 + Math.max(-MOST_STEER, Math.min(MOST_STEER, steer)));
      if (Math.abs(video.playbackRate - rate) > 0.01 * this.speed) video.playbackRate = rate;
    }

    // Show the clock's frame; while a seek is under way only the newest wish is kept.
    _place(track) {
      const frame = Math.min(Math.floor(this.now()), track.frames - 1);
      track.wanted = (frame + MIDDLE) / this.fps;
      if (!track.video.seeking) this._seekNext(track);
    }

    _seekNext(track) {
      if (track.wanted === null || track.video.readyState < 1) return;
      const wanted = track.wanted;
      track.wanted = null;
      if (Math.abs(track.video.currentTime - wanted) > 0.1 / this.fps) {
        track.sought = performance.now();
        track.video.currentTime = wanted;
      }
    }

    _tell() {
      const step = this.step();
      if (step === this._told) return;
      this._told = step;
      this._onStep(step);
    }
  }

  wamsim.Player = Player;
})((window.wamsim = window.wamsim || {}));
