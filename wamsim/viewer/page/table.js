// A table that draws only the rows in view: 20 or 20,000 rows scroll alike.
(function (wamsim) {
  "use strict";
  const { el, fill } = wamsim;

  const CONTROLS = "a, button, input"; // what a cell may hold
  const MARGIN_ROWS = 8; // drawn beyond the edges, so that a quick scroll shows no gap

  /**
   * @typedef {object} Column
   * @property {string} id Name in the address.
   * @property {string} title Heading.
   * @property {string} [tip] What the heading means, on hover.
   * @property {number} width Pixels; the columns share what is left in proportion to `grow`.
   * @property {number} [grow] 0 by default.
   * @property {string} [kind] Class of its cells: "number" aligns right.
   * @property {boolean} [falling] The first click sorts the largest first, as for numbers.
   * @property {function(object): *} [sort] Value to sort by; without it no sorting.
   * @property {function(object): (Node|string)} cell Content.
   */

  /**
   * Make a table.
   *
   * @param {object} spec label, columns, key(row), rowHeight, sort ("-rate"),
   *   onSort(sort), head(cell element of an unsortable column) optional, empty() -> Node,
   *   tone(row) -> class of a row.
   * @returns {{root: Element, setRows: function, setSort: function}} Rows are kept by key: the
   *   reader's place survives new rows.
   */
  function table(spec) {
    const height = spec.rowHeight || 36;
    let rows = [];
    let sorted = [];
    let sort = spec.sort || "";
    let shown = [-1, -1];
    let active = null; // key of the row that arrow keys move from
    const columns = spec.columns;

    const minimum = columns.reduce((sum, c) => sum + c.width, 0);
    const grow = columns.reduce((sum, c) => sum + (c.grow || 0), 0) || 1;
    const group = el(
      "colgroup",
      null,
      columns.map(() => el("col")),
    );
    const heads = columns.map(heading);
    const body = el("tbody");
    const node = el(
      "table.grid",
      { "aria-label": spec.label, style: { "min-width": `${minimum}px` } },
      group,
      el("thead", null, el("tr", { "aria-rowindex": 1 }, heads)),
      body,
    );
    const root = el(
      "div.scroller",
      { tabindex: "0", role: "region", "aria-label": `${spec.label}, scrollable` },
      node,
    );
    const none = el("div.scroller-empty", { hidden: true });
    const outer = el("div.table-outer", null, root, none);
    root.addEventListener("scroll", () => requestAnimationFrame(() => draw(false)), {
      passive: true,
    });
    root.addEventListener("keydown", onKey);
    body.addEventListener("focusin", (event) => {
      active = event.target.closest("tr")?.dataset.key ?? null;
    });
    new ResizeObserver(() => {
      layOut();
      draw(false);
    }).observe(root);
    markSort();

    function layOut() {
      const free = Math.max(0, root.clientWidth - minimum);
      [...group.children].forEach((col, i) => {
        const width = columns[i].width + (free * (columns[i].grow || 0)) / grow;
        col.style.width = `${width}px`;
      });
    }

    function heading(column) {
      const cell = el(`th.${column.kind || "text"}`, { scope: "col", title: column.tip });
      if (!column.sort) {
        return fill(cell, column.head ? column.head() : el("span.th-text", { text: column.title }));
      }
      const button = el("button.sorter", {
        type: "button",
        on: { click: () => flip(column.id) },
      });
      fill(button, el("span", { text: column.title }), el("span.arrow", { "aria-hidden": "true" }));
      return fill(cell, button);
    }

    function flip(id) {
      const column = columns.find((c) => c.id === id);
      const falling = column.falling || column.kind === "number"; // largest, newest first
      const first = falling ? `-${id}` : id;
      const second = falling ? id : `-${id}`;
      setSort(sort === first ? second : first);
      if (spec.onSort) spec.onSort(sort);
    }

    function setSort(next) {
      if (next === sort) return;
      sort = next;
      markSort();
      order();
    }

    function markSort() {
      columns.forEach((column, i) => {
        const on = sort.replace(/^-/, "") === column.id;
        const down = sort.startsWith("-");
        if (on) heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
        else heads[i].removeAttribute("aria-sort");
        const arrow = heads[i].querySelector(".arrow");
        if (arrow) arrow.textContent = on ? (down ? "↓" : "↑") : "";
      });
    }

    function setRows(next) {
      rows = next;
      order();
    }

    function order() {
      sorted = wamsim.sorted(rows, sort, columns);
      const empty = !sorted.length;
      if (empty && spec.empty) fill(none, spec.empty());
      none.hidden = !empty;
      outer.classList.toggle("empty", empty);
      node.setAttribute("aria-rowcount", String(sorted.length + 1));
      draw(true);
    }

    function draw(all) {
      const top = Math.floor(root.scrollTop / height) - MARGIN_ROWS;
      const first = Math.max(0, Math.min(top, sorted.length));
      const seen = Math.ceil((root.clientHeight || 800) / height) + 2 * MARGIN_ROWS;
      const last = Math.min(sorted.length, Math.max(0, top) + seen);
      if (!all && first === shown[0] && last === shown[1]) return;
      const kept = new Map();
      if (!all) for (const tr of body.children) if (tr.dataset.key) kept.set(tr.dataset.key, tr);
      const focus = all ? focusPlace() : null;
      shown = [first, last];
      const parts = [spacer(first)];
      for (let i = first; i < last; i++) {
        const key = String(spec.key(sorted[i]));
        parts.push(kept.get(key) || line(sorted[i], key, i));
      }
      parts.push(spacer(sorted.length - last));
      // Rows that stay are not taken out of the document: a focused link would lose focus.
      const stay = new Set(parts);
      for (const tr of [...body.children]) {
        if (stay.has(tr)) continue;
        if (!all && tr.contains(document.activeElement)) root.focus({ preventScroll: true });
        tr.remove();
      }
      parts.forEach((tr, i) => {
        if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] || null);
      });
      if (focus) restore(focus);
    }

    function spacer(count) {
      const tr = el("tr.spacer", { "aria-hidden": "true" });
      tr.append(el("td", { colspan: columns.length, style: { height: `${count * height}px` } }));
      if (!count) tr.hidden = true;
      return tr;
    }

    function line(row, key, i) {
      return el(
        `tr.${(spec.tone && spec.tone(row)) || "plain"}`,
        { "aria-rowindex": i + 2, data: { key }, style: { height: `${height}px` } },
        columns.map((c) => el(`td.${c.kind || "text"}`, null, c.cell(row))),
      );
    }

    // A redrawn row is a new element: find the same control in it again.
    function focusPlace() {
      const tr = document.activeElement?.closest?.("tr[data-key]");
      if (!tr || !body.contains(tr)) return null;
      const at = [...tr.querySelectorAll(CONTROLS)].indexOf(document.activeElement);
      return { key: tr.dataset.key, at };
    }

    function restore({ key, at }) {
      const tr = body.querySelector(`tr[data-key="${CSS.escape(key)}"]`);
      tr?.querySelectorAll(CONTROLS)[at]?.focus({ preventScroll: true });
    }

    function onKey(event) {
      const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 };
      const far = { Home: 0, End: sorted.length - 1 };
      if (!(event.key in moves) && !(event.key in far)) return;
      if (event.altKey || event.ctrlKey || event.metaKey || !sorted.length) return;
      const inRow = document.activeElement?.closest?.("tr[data-key]");
      if (!inRow && event.key !== "ArrowDown") return; // the region scrolls by itself
      event.preventDefault();
      const at = sorted.findIndex((row) => String(spec.key(row)) === active);
      const next =
        event.key in far ? far[event.key] : inRow ? at + moves[event.key] : Math.max(0, at);
      focusRow(Math.max(0, Math.min(sorted.length - 1, next)));
    }

    // The same control of another row; from outside, the row's link.
    function focusRow(i) {
      const from = document.activeElement;
      const place = [...(from.closest("tr[data-key]")?.querySelectorAll(CONTROLS) || [])].indexOf(
        from,
      );
      const above = i * height;
      const room = root.clientHeight - height; // the head is sticky
      if (above < root.scrollTop) root.scrollTop = above;
      if (above + height > root.scrollTop + room) root.scrollTop = above + height - room;
      draw(false);
      const tr = body.querySelector(`tr[data-key="${CSS.escape(String(spec.key(sorted[i])))}"]`);
      const controls = tr ? [...tr.querySelectorAll(CONTROLS)] : [];
      const next = controls[place] || tr?.querySelector("a.row-link") || controls[0];
      next?.focus({ preventScroll: true });
    }

    return { root: outer, setRows, setSort };
  }

  /** Sort rows by a column; rows without a value come last, whichever way. */
  wamsim.sorted = function (rows, sort, columns) {
    const column = columns.find((c) => c.id === sort.replace(/^-/, ""));
    if (!column || !column.sort) return rows;
    const sign = sort.startsWith("-") ? -1 : 1;
    const valued = rows.map((row, i) => [column.sort(row), i, row]);
    const none = (v) => v === null || v === undefined || Number.isNaN(v);
    valued.sort(([a, i], [b, j]) => {
      if (none(a) || none(b)) return none(a) - none(b) || i - j;
      const order =
        typeof a === "string" ? a.localeCompare(String(b), undefined, { numeric: true }) : a - b;
      return sign * order || i - j;
    });
    return valued.map((v) => v[2]);
  };

  wamsim.table = table;
})((window.wamsim = window.wamsim || {}));
