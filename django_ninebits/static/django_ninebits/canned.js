/* Inserts canned replies where the cursor is: by the button, or from a list that a / opens.

   Without it the button brings the page back with the reply behind the text. */
"use strict";
(() => {
  const SHOWN = 8;
  const TYPED = /(?:^|\s)\/(\S{0,40})$/;

  const list = document.getElementById("nb-slash");
  if (!list) {
    return;
  }
  const data = JSON.parse(document.getElementById("nb-composer").textContent);
  const form = document.querySelector("form.nb-reply");
  const { text, canned: picker, insert } = form.elements;
  const gap = new RegExp(`\\{(?:${data.placeholders.join("|")})(?:\\|[^{}]*)?\\}`);
  let found = [];
  let active = 0;
  let start = -1; // of the / that the list belongs to
  let declined = -1; // the / of which nobody wants the list

  /* As if it had been typed, so that it can be undone; a gap is selected, to be filled in. */
  function put(reply, from, to) {
    text.focus();
    text.setSelectionRange(from, to);
    if (!document.execCommand("insertText", false, reply)) {
      text.setRangeText(reply, from, to, "end");
      text.dispatchEvent(new Event("input", { bubbles: true }));
    }
    const left = gap.exec(reply);
    if (left) {
      text.setSelectionRange(from + left.index, from + left.index + left[0].length);
    }
  }

  function look() {
    const before = text.value.slice(0, text.selectionStart);
    const typed = text.selectionStart === text.selectionEnd && TYPED.exec(before);
    start = typed ? before.length - typed[1].length - 1 : -1;
    if (start !== declined) {
      declined = -1;
    }
    found = typed && declined < 0 ? matching(typed[1].toLowerCase()) : [];
    active = 0;
    draw();
  }

  /* Titles that begin with it come first. */
  function matching(words) {
    const rank = ({ title }) => (title.toLowerCase().startsWith(words) ? 0 : 1);
    return data.canned
      .filter(({ title }) => title.toLowerCase().includes(words))
      .sort((one, other) => rank(one) - rank(other))
      .slice(0, SHOWN);
  }

  function draw() {
    list.hidden = !found.length;
    list.replaceChildren(...found.map(option));
    if (list.hidden) {
      text.removeAttribute("aria-controls");
      text.removeAttribute("aria-activedescendant");
      return;
    }
    text.setAttribute("aria-controls", list.id);
    text.setAttribute("aria-activedescendant", `${list.id}-${active}`);
    list.children[active].scrollIntoView({ block: "nearest" });
  }

  function option(reply, index) {
    const item = document.createElement("li");
    item.id = `${list.id}-${index}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(index === active));
    const title = document.createElement("b");
    title.textContent = reply.title;
    const excerpt = document.createElement("span");
    excerpt.textContent = reply.text;
    excerpt.dir = "auto";
    item.append(title, " ", excerpt);
    item.addEventListener("mousedown", (event) => {
      event.preventDefault();
      choose(reply);
    });
    return item;
  }

  function choose(reply) {
    const from = start;
    close();
    put(reply.text, from, text.selectionEnd);
  }

  function close() {
    found = [];
    draw();
  }

  function move(by) {
    active = (active + by + found.length) % found.length;
    draw();
  }

  const KEYS = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    Enter: () => choose(found[active]),
    Tab: () => choose(found[active]),
    Escape: () => {
      declined = start;
      close();
    },
  };

  text.addEventListener("input", (event) => {
    if (!event.isComposing && document.activeElement === text) {
      look();
    }
  });
  text.addEventListener("keydown", (event) => {
    const isPlain = !(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey);
    if (found.length && isPlain && !event.isComposing && event.key in KEYS) {
      event.preventDefault();
      KEYS[event.key]();
    }
  });
  text.addEventListener("click", close);
  text.addEventListener("blur", close);
  insert.addEventListener("click", (event) => {
    event.preventDefault();
    const reply = data.canned.find(({ pk }) => pk === picker.value);
    put(reply.text, text.selectionStart, text.selectionEnd);
  });
  // It stays a field of several lines, which no combobox is.
  text.setAttribute("aria-autocomplete", "list");
  text.setAttribute("aria-haspopup", "listbox");
  form.querySelector("[data-nb=slash]").hidden = false;
})();
