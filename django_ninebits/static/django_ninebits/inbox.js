/* Keeps the list of the inbox up to date. Without it the list is right when it is loaded.

   The page is asked for again, by live.js. What has changed is put into the rows that are there: they
   keep their places in the script that selects them, and who is selected or has the focus stays so. */
"use strict";
(() => {
  const STEADY = 1500; // milliseconds for which the pointer must rest before rows move under it
  const UNITS = [
    ["year", 31536000],
    ["month", 2592000],
    ["week", 604800],
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
  ];

  const live = document.getElementById("nb-live");
  if (!live) {
    return;
  }
  const clockIsAhead = Date.now() - Number(live.dataset.now) * 1000;
  let pointerMovedAt = 0;
  const { say } = ninebits.keepUpToDate(live, {
    asks: (options) => fetch(location.href, options),
    show,
    tick,
  });

  const form = () => document.getElementById("changelist-form");
  const tableIn = (root) => root.querySelector("#result_list");
  // In another admin each row may have a body of its own.
  const rowsOf = (table) => Array.from(table.tBodies).flatMap((body) => Array.from(body.rows));
  const checkboxOf = (row) => row.querySelector("input.action-select");
  const keyOf = (row) => row.querySelector("a[href]")?.pathname;

  /* Until nobody is about to click. */
  async function rest() {
    while (Date.now() - pointerMovedAt < STEADY) {
      await new Promise((done) => setTimeout(done, 100));
    }
  }

  async function show(page, { isLeaving }) {
    await rest();
    const fresh = page.getElementById("nb-live");
    if (isLeaving() || !fresh) {
      return;
    }
    const before = live.dataset.said;
    const token = page.querySelector("[name=csrfmiddlewaretoken]")?.value;
    for (const field of document.querySelectorAll("[name=csrfmiddlewaretoken]")) {
      // Or else nothing could be done once somebody has logged in again: that changes the token.
      field.value = token ?? field.value;
    }
    Object.assign(live.dataset, { tag: fresh.dataset.tag, said: fresh.dataset.said });
    for (const part of [".nb-folders", ".nb-pages"]) {
      graft(document.querySelector(part), page.querySelector(part));
    }
    showRows(tableIn(document), tableIn(page), page);
    if (live.dataset.said !== before) {
      say(live.dataset.said, false);
    }
  }

  function graft(old, fresh) {
    if (old && fresh && old.innerHTML !== fresh.innerHTML) {
      const index = Array.from(old.querySelectorAll("a")).indexOf(document.activeElement);
      old.innerHTML = fresh.innerHTML;
      if (index >= 0) {
        old.querySelectorAll("a")[index]?.focus();
      }
    }
  }

  function showRows(table, fresh, page) {
    const is = table ? rowsOf(table).length : 0;
    const shall = fresh ? rowsOf(fresh).length : 0;
    const focus = focused(table);
    const selected = table ? selectedIn(table) : new Set();
    if (is !== shall) {
      // Another number of rows: the script that selects them begins anew.
      form().replaceChildren(...page.getElementById("changelist-form").childNodes);
      const boxes = document.querySelectorAll("tr input.action-select");
      if (boxes.length && window.Actions) {
        // The one of unfold asks within what it looks for its parts.
        window.Actions(boxes, { parent: document });
      }
    } else if (table) {
      const old = rowsOf(table);
      rowsOf(fresh).forEach((row, index) => fill(old[index], row));
    }
    if (tableIn(document)) {
      select(tableIn(document), selected);
      refocus(tableIn(document), focus);
    }
  }

  function fill(row, fresh) {
    const box = checkboxOf(row);
    const other = checkboxOf(fresh);
    if (box && other) {
      box.value = other.value;
      box.setAttribute("aria-label", other.getAttribute("aria-label"));
      row.querySelector("input[name=seen]").value = fresh.querySelector("input[name=seen]").value;
    }
    Array.from(row.cells).forEach((cell, index) => {
      if (!cell.contains(box) && cell.innerHTML !== fresh.cells[index].innerHTML) {
        cell.innerHTML = fresh.cells[index].innerHTML;
      }
    });
  }

  function selectedIn(table) {
    return new Set(rowsOf(table).filter((row) => checkboxOf(row)?.checked).map(keyOf));
  }

  function select(table, selected) {
    for (const row of rowsOf(table)) {
      const box = checkboxOf(row);
      const isSelected = selected.has(keyOf(row));
      if (box && box.checked !== isSelected) {
        box.checked = isSelected;
        row.classList.toggle("selected", isSelected);
      }
    }
    // So that what is counted is right.
    table.querySelector("input.action-select")?.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function focused(table) {
    const row = table && document.activeElement.closest("#result_list tbody tr");
    return row && { key: keyOf(row), index: focusable(row).indexOf(document.activeElement) };
  }

  function focusable(row) {
    return Array.from(row.querySelectorAll("a, input:not([type=hidden])"));
  }

  function refocus(table, focus) {
    if (!focus) {
      return;
    }
    const row = rowsOf(table).find((one) => keyOf(one) === focus.key);
    if (row) {
      focusable(row)[focus.index]?.focus({ preventScroll: true });
    } else {
      // Not on whoever has taken the place.
      document.activeElement.blur();
    }
  }

  /* How long somebody waits goes on although nothing changes. */
  function tick() {
    const now = Date.now() - clockIsAhead;
    for (const time of document.querySelectorAll("#result_list time.nb-waits")) {
      const seconds = (now - Date.parse(time.dateTime)) / 1000;
      const [unit, length] = UNITS.find(([, least]) => seconds >= least) ?? UNITS.at(-1);
      const shown = new Intl.NumberFormat(document.documentElement.lang, {
        style: "unit",
        unit,
        unitDisplay: "long",
      }).format(Math.max(0, Math.floor(seconds / length)));
      if (time.textContent !== shown) {
        time.textContent = shown;
      }
    }
  }

  document.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && event.target.closest?.("#result_list")) {
      pointerMovedAt = Date.now();
    }
  });
})();
