/* Keys for those who work in the inbox all day, and the list of them, which ? opens.

   What a key does is written in that list, so that nothing works that it does not tell. None of them
   sends, closes or assigns: those take a button. Where software types for somebody, by voice say,
   single keys can be switched off. */
"use strict";
(() => {
  const SETTING = "nb-single-keys";
  const FIELDS = "textarea, select, [contenteditable], input:not([type=checkbox], [type=radio])";

  const dialog = document.getElementById("nb-keys");
  if (!dialog) {
    return;
  }
  const opener = document.querySelector(".nb-keys-open");
  const single = dialog.querySelector("[type=checkbox]");
  const close = dialog.querySelector("button");

  const rows = () => Array.from(document.querySelectorAll("#result_list tbody tr"));
  const current = () => document.activeElement.closest("#result_list tbody tr");
  const linkOf = (row) => row?.querySelector("a[href]");

  function move(by) {
    const all = rows();
    const to = Math.min(Math.max(all.indexOf(current()) + by, 0), all.length - 1);
    linkOf(all[to])?.focus();
  }

  function search() {
    const box = document.getElementById("searchbar");
    box.focus();
    box.select();
  }

  function tell() {
    dialog.showModal();
    close.focus();
  }

  const DOES = {
    next: () => move(1),
    previous: () => move(-1),
    open: () => linkOf(current())?.click(),
    select: () => current()?.querySelector("input.action-select")?.click(),
    search,
    write: () => document.querySelector(".nb-reply textarea").focus(),
    inbox: () => document.getElementById("nb-inbox").click(),
    tell,
  };
  const does = new Map();
  for (const row of dialog.querySelectorAll("[data-does]")) {
    for (const key of row.querySelectorAll("kbd")) {
      does.set(key.textContent, DOES[row.dataset.does]);
    }
  }

  function press(event) {
    if (event.defaultPrevented || event.isComposing || dialog.open) {
      return;
    }
    if (event.key === "Escape" && event.target.matches(".nb-foot textarea")) {
      event.target.blur();
      return;
    }
    // Where / or ? take the shift key, they come as themselves; a locked one is no shift.
    const key = event.shiftKey ? event.key : event.key.toLowerCase();
    const isPlain = !(event.ctrlKey || event.metaKey || event.altKey);
    if (single.checked && isPlain && does.has(key) && !event.target.closest(FIELDS)) {
      event.preventDefault();
      does.get(key)();
    }
  }

  /* Where a browser keeps nothing they are on. */
  function trying(action) {
    try {
      return action(localStorage);
    } catch {
      return undefined;
    }
  }

  single.checked = trying((storage) => storage.getItem(SETTING)) !== "off";
  single.addEventListener("change", () => {
    trying((storage) => storage.setItem(SETTING, single.checked ? "on" : "off"));
  });
  close.addEventListener("click", () => dialog.close());
  opener.addEventListener("click", tell);
  opener.hidden = false;
  document.addEventListener("keydown", press);
})();
