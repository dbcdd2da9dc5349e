/* Keeps what is written and not yet sent in this browser: through a reload, and through a login.

   A draft belongs to one user and one conversation. Two tabs that show the same one stay the same, and
   what one of them has begun to send the other sends with the same key.
   Whether a draft was sent is what the page says, which names the keys of the replies it shows: until
   one names its key, it is sent with that key only, and so never twice. */
"use strict";
(() => {
  const PREFIX = "nb-draft:";
  const LONGEST = 7 * 24 * 3600 * 1000; // milliseconds that a draft is kept

  const form = document.querySelector("form.nb-reply");
  if (!form) {
    return;
  }
  const { text, send_at: later, ref_id: key } = form.elements;
  const { draft: whose, taken, isReturned } = form.dataset;
  const name = PREFIX + whose;
  const own = { key: key.value, address: form.action };
  const note = form.querySelector(".nb-restored");
  let pressed = {};
  let isFollowing = false;

  function read(written) {
    try {
      return JSON.parse(written) ?? {};
    } catch {
      return {};
    }
  }

  /* Where a browser keeps nothing there are no drafts. */
  function trying(action) {
    try {
      return action(localStorage);
    } catch {
      return undefined;
    }
  }

  function save() {
    if (!text.value.trim()) {
      trying((storage) => storage.removeItem(name));
      return;
    }
    const draft = { text: text.value, later: later.value, at: Date.now(), ...pressed };
    const isKept = trying((storage) => {
      storage.setItem(name, JSON.stringify(draft));
      return true;
    });
    if (isKept) {
      // The text need not be shown by a page of its own when the login has expired.
      form.elements.keep?.remove();
    }
  }

  function forgetTheOld(storage) {
    for (const one of Object.keys(storage).filter((one) => one.startsWith(PREFIX))) {
      if (!(Date.now() - read(storage.getItem(one)).at < LONGEST)) {
        storage.removeItem(one);
      }
    }
  }

  function open() {
    trying(forgetTheOld);
    if (isReturned) {
      save();
      return;
    }
    const draft = read(trying((storage) => storage.getItem(name)) ?? null);
    const isTaken = taken.split(" ").includes(draft.key);
    if (isTaken && draft.text === draft.sent) {
      trying((storage) => storage.removeItem(name));
    } else if (draft.text && !text.value) {
      restore(draft, isTaken ? {} : { key: draft.key, sent: draft.sent });
    }
  }

  function restore(draft, before) {
    show(draft);
    note.hidden = false;
    take(before);
    save();
  }

  /* The key of the page that has begun to send it, or this page's own where none has. */
  function take(before) {
    const address = new URL(own.address);
    if (before.key) {
      // It may yet arrive from there: what has its key is not sent a second time.
      address.searchParams.set("compose", before.key);
    }
    pressed = before;
    key.value = before.key ?? own.key;
    form.action = address;
  }

  function show(draft) {
    isFollowing = true;
    text.value = draft.text ?? "";
    later.value = draft.later ?? "";
    later.closest("details").open = Boolean(later.value);
    for (const field of [text, later]) {
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    isFollowing = false;
  }

  form.addEventListener("input", () => {
    if (!isFollowing) {
      note.hidden = true;
      save();
    }
  });
  form.addEventListener("submit", (event) => {
    if (!event.submitter?.name) {
      pressed = { key: key.value, sent: text.value };
      save();
    }
  });
  window.addEventListener("storage", (event) => {
    const [before, now] = [event.oldValue, event.newValue].map(read);
    if (event.key !== name || (before.text ?? "") !== text.value) {
      return;
    }
    if ((now.text ?? "") !== text.value) {
      show(now);
    }
    take(now.key ? { key: now.key, sent: now.sent } : {});
  });
  open();
})();
